import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from golden_noise.errors import UserError
from golden_noise.pairs import NoisePair, prompt_hash

from .factory import make_pair


def stored_sample(index: int = 7, **changes) -> dict:
    return make_pair(index).to_sample() | {"__url__": "data/pairs-000000.tar"} | changes


def npy(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def test_a_pair_survives_the_round_trip():
    pair = make_pair(7)
    loaded = NoisePair.from_sample(stored_sample())
    assert (loaded.prompt, loaded.scores, loaded.search) == (pair.prompt, pair.scores, pair.search)
    for name in ("noise", "golden", "embeds", "pooled"):
        assert getattr(loaded, name).dtype == torch.float32
        assert torch.equal(getattr(loaded, name), getattr(pair, name))


def test_a_rejected_pair_keeps_its_scores_only():
    pair = make_pair(7, accepted=False)
    sample = pair.to_sample()
    assert sorted(sample) == ["__key__", "json"]
    loaded = NoisePair.from_sample(sample)
    assert not loaded.accepted and loaded.noise is None and loaded.scores == pair.scores


def test_embeddings_are_optional():
    sample = stored_sample()
    del sample["embeds.npy"], sample["pooled.npy"]
    loaded = NoisePair.from_sample(sample)
    assert loaded.embeds is loaded.pooled is None


@settings(deadline=None)
@given(st.text())
def test_any_prompt_text_survives(text):
    sample = make_pair(7, accepted=False, text=text or "x").to_sample()
    assert NoisePair.from_sample(sample).prompt.text == (text or "x")


def test_prompt_hash_is_the_start_of_sha256():
    assert prompt_hash("abc") == "ba7816bf"


def test_values_beyond_float16_are_refused_when_written():
    pair = dataclasses.replace(make_pair(7), golden=torch.full((4, 2, 2), 1e6))
    with pytest.raises(UserError, match=r"000000007.*golden.*float16"):
        pair.to_sample()


META = json.loads(make_pair(7).to_sample()["json"])
NOT_FINITE = np.full((4, 2, 2), np.nan, dtype=np.float16)


@pytest.mark.parametrize(
    "changes",
    [
        {"noise.npy": npy(np.array([{"a": 1}], dtype=object), allow_pickle=True)},
        {"noise.npy": b"\x80\x04K\x01."},  # a bare pickle, which np.load tries when it finds no npy magic
        {"noise.npy": npy(np.zeros((4, 2, 2), np.float32))},
        {"noise.npy": npy(np.zeros((4, 4), np.float16))},
        {"golden.npy": npy(np.zeros((4, 2, 3), np.float16))},
        {"golden.npy": npy(NOT_FINITE)},
        {"embeds.npy": npy(np.zeros((3, 5), np.float16))[:-1]},
        {"embeds.npy": b""},
        {"json": b"{"},
        {"json": b"[]"},
        {"json": b"[" * 100_000},
        {"json": json.dumps(META | {"index": 8}).encode()},
        {"json": json.dumps(META | {"index": True}).encode()},
        {"json": json.dumps(META | {"prompt": 3}).encode()},
        {"json": json.dumps(META | {"tags": {"task": 1}}).encode()},
        {"json": json.dumps(META | {"accepted": False}).encode()},
        {"json": json.dumps(META | {"scores": {"hpsv2": [1.0]}}).encode()},
        {"json": json.dumps(META | {"scores": {"hpsv2": [1.0, float("nan")]}}).encode()},
        {"json": json.dumps(META | {"scores": {"hpsv2": [1.0, 10**400]}}).encode()},
        {"json": json.dumps({name: META[name] for name in META if name != "seed"}).encode()},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_malformed_sample_names_its_shard_and_key(changes):
    with pytest.raises(UserError) as error:
        NoisePair.from_sample(stored_sample(**changes))
    message = str(error.value)
    assert "data/pairs-000000.tar" in message and "000000007" in message and "\n" not in message


@pytest.mark.parametrize("member", ["json", "golden.npy"])
def test_a_missing_member_is_malformed(member):
    sample = stored_sample()
    del sample[member]
    with pytest.raises(UserError, match=r"pairs-000000\.tar.*000000007"):
        NoisePair.from_sample(sample)


@settings(deadline=None)
@given(st.sampled_from(["json", "noise.npy", "golden.npy", "embeds.npy", "pooled.npy"]), st.data())
def test_no_flipped_bit_escapes_as_another_error(member, data):
    sample = stored_sample()
    content = bytearray(sample[member])
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    try:
        pair = NoisePair.from_sample(sample | {member: bytes(content)})
    except UserError:
        return
    assert pair.noise is not None and pair.golden is not None
    assert pair.noise.shape == pair.golden.shape and pair.noise.isfinite().all()
