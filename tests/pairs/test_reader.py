import errno
import os
import random
import tarfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from golden_noise.errors import UserError
from golden_noise.pairs import NoisePair, ShardIndex, read_shard
from golden_noise.pairs.reader import OpenShard
from golden_noise.pairs.source import ShardSource

from .factory import (
    EMBEDS_SHAPE,
    LATENT_SHAPE,
    POOLED_SHAPE,
    collect,
    make_pair,
    overwrite_shard,
    replace_shard,
    rewrite_entry,
)

SHAPES = {"noise": LATENT_SHAPE, "golden": LATENT_SHAPE, "embeds": EMBEDS_SHAPE, "pooled": POOLED_SHAPE}


def read_places(folder: Path) -> list[tuple[str, dict[str, np.ndarray]]]:
    """All pairs of the first shard, as the training reads them."""
    entry = ShardIndex.load(folder).shards[0]
    shard = OpenShard(ShardSource(folder).open(entry), entry, str(folder / entry.name))
    pairs = []
    for place in range(entry.samples):
        out = {name: np.empty(shape, np.float16) for name, shape in SHAPES.items()}
        key, _ = shard.read(place, out)
        pairs.append((key, out))
    shard.close()
    return pairs


def read_samples(folder: Path) -> list[tuple[str, dict[str, np.ndarray]]]:
    """The same, as everything else reads them."""
    samples = read_shard(folder, ShardIndex.load(folder).shards[0])
    pairs = [NoisePair.from_sample(sample) for sample in samples]
    tensors = [(pair.key, {name: getattr(pair, name) for name in SHAPES}) for pair in pairs]
    return [(key, {name: x.numpy() for name, x in found.items() if x is not None}) for key, found in tensors]


def test_both_ways_of_reading_give_what_was_collected(tmp_path):
    collect(tmp_path, [8])
    for (key, arrays), (other_key, others) in zip(read_places(tmp_path), read_samples(tmp_path), strict=True):
        pair = make_pair(int(key))
        assert key == other_key
        for name in SHAPES:
            assert np.array_equal(arrays[name], getattr(pair, name).numpy())
            assert np.array_equal(arrays[name], others[name])


def test_an_array_with_another_header_of_the_same_meaning_is_read(tmp_path):
    """numpy reads more than it writes: here, version 2 of its format."""
    collect(tmp_path, [2])
    stream = BytesIO()
    np.lib.format.write_array(stream, make_pair(0).noise.numpy().astype(np.float16), version=(2, 0))
    replace_member(tmp_path, "000000000.noise.npy", stream.getvalue())
    assert np.array_equal(read_places(tmp_path)[0][1]["noise"], make_pair(0).noise.numpy())


def replace_member(folder: Path, name: str, data: bytes | None) -> None:
    """A shard with another content of one member, or without it, and an index that vouches for that."""
    content = BytesIO()
    with tarfile.open(folder / "pairs-000000.tar") as old, tarfile.open(fileobj=content, mode="w") as new:
        for member in old:
            changed = old.extractfile(member).read() if member.name != name else data
            if changed is not None:
                member.size = len(changed)
                new.addfile(member, BytesIO(changed))
    replace_shard(folder, content.getvalue())


def test_a_shard_cut_in_the_stream_names_the_file(tmp_path):
    collect(tmp_path, [8])
    path = tmp_path / "pairs-000000.tar"
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    content = path.read_bytes()[: last.offset_data + last.size]  # without the padding, whose loss loses nothing
    for length in [*range(0, len(content), 512), len(content) // 2 + 7, len(content) - 1]:
        replace_shard(tmp_path, content[:length])
        with pytest.raises(UserError, match=r"pairs-000000\.tar is damaged.*repeat the collection") as error:
            read_samples(tmp_path)
        assert "\n" not in str(error.value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_flipped_bit_in_a_shard_escapes_as_another_error(tmp_path, data):
    collect(tmp_path, [4])
    path = tmp_path / "pairs-000000.tar"
    content = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    overwrite_shard(tmp_path, content)
    for read in (read_places, read_samples):
        with pytest.raises(UserError, match=r"pairs-000000\.tar is damaged \(its checksum"):
            read(tmp_path)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A shard with a few bytes changed, removed, repeated or swapped, at any place or in a header of a member."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data))
        if rng.random() < 0.5:  # where tar and numpy look
            place = min(place // 512 * 512 + rng.choice([0, 10, 100, 124, 135, 148, 156, 257, 345]), len(data) - 1)
        length = rng.choice([1, 2, 8, 100, 512])
        kind = rng.randrange(5)
        if kind == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[place : place + length] = rng.randbytes(length)
        elif kind == 2:
            del data[place : place + length]
        elif kind == 3:
            data[place:place] = data[place : place + length]
        else:
            data[place : place + length] = rng.choice([b"\x80", b"\xff", b"0", b"\0"]) * length
        if not data:
            break
    return bytes(data)


def fix_headers(content: bytes) -> bytes:
    """The same with right checksums in the headers, so that what follows them is read."""
    data = bytearray(content)
    for start in range(0, len(data) - 511, 512):
        if data[start + 257 : start + 262] == b"ustar":
            data[start + 148 : start + 156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    return bytes(data)


@pytest.mark.parametrize("first", range(0, 1000, 250))
def test_a_fuzzed_shard_is_read_as_it_was_or_refused_in_one_line(tmp_path, first):
    """1,000 forged shards that their index vouches for: no other error, no code from them, no waiting."""
    collect(tmp_path, [3])
    content = (tmp_path / "pairs-000000.tar").read_bytes()
    refused = 0
    for seed in range(first, first + 250):
        rng = random.Random(seed)
        forged = mutated(content, rng)
        replace_shard(tmp_path, fix_headers(forged) if rng.random() < 0.7 else forged)
        for read in (read_places, read_samples):
            try:
                pairs = read(tmp_path)
            except UserError as error:
                refused += 1
                assert "pairs-000000.tar" in str(error) and "\n" not in str(error) and len(str(error)) < 1000
            else:
                assert [key for key, _ in pairs] == [f"{index:09d}" for index in range(3)]
                assert all(np.isfinite(array).all() for _, arrays in pairs for array in arrays.values())
    assert 150 < refused < 500


def test_an_array_of_objects_is_never_unpickled(tmp_path):
    collect(tmp_path, [2])
    stream = BytesIO()
    np.save(stream, np.array([Bomb()], dtype=object), allow_pickle=True)
    replace_member(tmp_path, "000000000.golden.npy", stream.getvalue())
    for read in (read_places, read_samples):
        with pytest.raises(UserError, match=r"pairs-000000\.tar: sample 000000000 is malformed.*pickle"):
            read(tmp_path)


class Bomb:
    def __reduce__(self):
        return os.abort, ()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -np.nan])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
    collect(tmp_path, [2])
    array = make_pair(1).golden.numpy().astype(np.float16)
    array[3, 1, 1] = value
    stream = BytesIO()
    np.save(stream, array)
    replace_member(tmp_path, "000000001.golden.npy", stream.getvalue())
    for read in (read_places, read_samples):
        with pytest.raises(UserError, match=r"sample 000000001 is malformed \(golden\.npy is not finite\)"):
            read(tmp_path)


@pytest.mark.parametrize("member", ["json", "golden.npy", "embeds.npy"])
def test_a_missing_member_is_named(tmp_path, member):
    collect(tmp_path, [2])
    replace_member(tmp_path, f"000000001.{member}", None)
    with pytest.raises(UserError, match=r"pairs-000000\.tar: sample .* is malformed"):
        read_places(tmp_path)


def test_a_prompt_that_the_index_does_not_know_is_refused(tmp_path):
    collect(tmp_path, [2])
    rewrite_entry(tmp_path, prompts=["ffffffff"] * 2)
    with pytest.raises(UserError, match=r"pairs-000000\.tar.*000000000.*index\.json"):
        read_places(tmp_path)


@pytest.mark.parametrize("samples", [1, 3])
def test_another_number_of_samples_than_recorded_is_refused(tmp_path, samples):
    collect(tmp_path, [2])
    rewrite_entry(tmp_path, samples=samples, prompts=["ffffffff"] * samples)
    for read in (read_places, read_samples):
        with pytest.raises(UserError, match=r"pairs-000000\.tar is damaged"):
            read(tmp_path)


def test_a_read_that_stops_early_is_continued(tmp_path, monkeypatch):
    """Any read may, as some network file systems show."""
    collect(tmp_path, [2])
    whole, samples = read_places(tmp_path), read_samples(tmp_path)
    pread, preadv = os.pread, os.preadv
    monkeypatch.setattr(os, "pread", lambda file, size, offset: pread(file, max(1, size // 3), offset))
    monkeypatch.setattr(os, "preadv", lambda file, parts, offset: preadv(file, parts[:1], offset))
    for want, have in ((whole, read_places(tmp_path)), (samples, read_samples(tmp_path))):
        assert [key for key, _ in want] == [key for key, _ in have]
        for (_, arrays), (_, others) in zip(want, have, strict=True):
            assert all(np.array_equal(arrays[name], others[name]) for name in arrays)


def test_a_shard_that_is_overwritten_while_it_is_read_is_refused(tmp_path):
    """Of one that is replaced by another file, the old content is read on."""
    collect(tmp_path, [2])
    entry = ShardIndex.load(tmp_path).shards[0]
    path = tmp_path / entry.name
    good = path.read_bytes()
    out = {name: np.empty(shape, np.float16) for name, shape in SHAPES.items()}
    shard = OpenShard(ShardSource(tmp_path).open(entry), entry, str(path))
    (tmp_path / "other").write_bytes(bytes(len(good)))
    (tmp_path / "other").replace(path)
    assert shard.read(0, out)[0] == make_pair(0).key
    path.write_bytes(good)
    shard = OpenShard(ShardSource(tmp_path).open(entry), entry, str(path))
    time.sleep(0.02)  # the system's clock for files ticks every few milliseconds
    path.write_bytes(good)  # other noise would look as good
    with pytest.raises(UserError, match="was changed while it was read"):
        shard.read(0, out)


def test_a_shard_that_cannot_be_read_now_is_not_called_damaged(tmp_path, monkeypatch):
    """Its line would say: delete it."""
    collect(tmp_path, [2])
    entry = ShardIndex.load(tmp_path).shards[0]
    shard = OpenShard(ShardSource(tmp_path).open(entry), entry, str(tmp_path / entry.name))

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fail)
    out = {name: np.empty(shape, np.float16) for name, shape in SHAPES.items()}
    for read in (lambda: shard.read(0, out), lambda: shard.shapes(0), lambda: list(read_shard(tmp_path, entry))):
        with pytest.raises(UserError, match=rf"{entry.name} cannot be read \(.*Input/output error\)") as raised:
            read()
        assert "delete" not in str(raised.value)
