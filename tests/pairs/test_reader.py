import hashlib
import os
import tarfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from golden_noise.errors import UserError
from golden_noise.pairs import NoisePairDataset, ShardIndex, ShardWriter, prompt_hash, read_shard
from golden_noise.pairs.datamodule import NoisePairLoader
from golden_noise.pairs.reader import split_of

from .factory import (
    CONFIG,
    EMBEDS_SHAPE,
    LATENT_SHAPE,
    POOLED_SHAPE,
    collect,
    make_pair,
    overwrite_shard,
    replace_shard,
    rewrite_entry,
)

VAL_FRACTION = 0.3


def dataset(folder: Path, split="train", batch_size=2, **kwargs) -> NoisePairDataset:
    shards = ShardIndex.load(folder).shards
    return NoisePairDataset(folder, shards, split, VAL_FRACTION, batch_size, LATENT_SHAPE, EMBEDS_SHAPE, **kwargs)


def batch_keys(batches) -> list[list[str]]:
    return [batch["key"] for batch in batches]


def split_keys(folder: Path, split: str) -> list[str]:
    samples = [sample for shard in ShardIndex.load(folder).shards for sample in read_shard(folder, shard)]
    return [sample["__key__"] for sample in samples if split_of(sample["__prompt__"], VAL_FRACTION) == split]


@pytest.mark.parametrize("options", [{}, {"pooled_shape": POOLED_SHAPE}])
def test_a_batch_holds_what_was_collected(tmp_path, options):
    collect(tmp_path, [8])
    batch = next(iter(dataset(tmp_path, batch_size=3, **options)))
    pairs = [make_pair(int(key)) for key in batch["key"]]
    shapes = {"noise": LATENT_SHAPE, "golden": LATENT_SHAPE, "embeds": EMBEDS_SHAPE}
    if options:
        shapes["pooled"] = POOLED_SHAPE
    assert batch.keys() == {"key", *shapes}
    for name, shape in shapes.items():
        assert batch[name].shape == (3, *shape) and batch[name].dtype == torch.float32
        assert torch.equal(batch[name], torch.stack([getattr(pair, name) for pair in pairs]))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 7), min_size=1, max_size=4),
    batch_size=st.integers(1, 4),
    world_size=st.integers(1, 3),
    shuffle_buffer=st.sampled_from([0, 1, 3, 100]),
)
def test_ranks_share_an_epoch_exactly(tmp_path_factory, sizes, batch_size, world_size, shuffle_buffer):
    folder = tmp_path_factory.mktemp("pairs")
    collect(folder, sizes)
    for split in ("train", "val"):
        ranks = [
            dataset(folder, split, batch_size, shuffle_buffer=shuffle_buffer, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        seen = [batch_keys(rank) for rank in ranks]
        expected = split_keys(folder, split)
        assert [len(batches) for batches in seen] == [len(rank) for rank in ranks]
        flat = [key for batches in seen for batch in batches for key in batch]
        assert len(flat) == len(set(flat)) and set(flat) <= set(expected)
        if split == "val":
            assert set(flat) == set(expected)
        else:
            steps = len(expected) // batch_size // world_size
            assert {len(batches) for batches in seen} == {steps}
            assert len(flat) == steps * batch_size * world_size


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_number_of_workers_does_not_change_the_batches(tmp_path, world_size):
    collect(tmp_path, [9, 4, 12, 6])
    for split in ("train", "val"):
        stream = dataset(tmp_path, split, batch_size=1, shuffle_buffer=5, rank=world_size - 1, world_size=world_size)
        runs = [batch_keys(NoisePairLoader(stream, workers)) for workers in (0, 1, 2)]
        assert runs[0] == runs[1] == runs[2] and len(runs[0]) > 2


def test_order_is_a_function_of_seed_and_epoch(tmp_path):
    collect(tmp_path, [6, 6, 6])

    def order(seed: int, epoch: int) -> list[list[str]]:
        stream = dataset(tmp_path, batch_size=1, shuffle_buffer=4, seed=seed)
        stream.start_at(epoch, 0)
        return batch_keys(stream)

    orders = [order(0, 0), order(0, 1), order(1, 0)]
    assert orders == [order(0, 0), order(0, 1), order(1, 0)]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])


def test_without_a_buffer_the_order_is_that_of_the_index(tmp_path):
    collect(tmp_path, [6, 6, 6])
    stream = dataset(tmp_path, batch_size=1)
    stream.start_at(epoch=5, batch=0)
    assert [key for (key,) in batch_keys(stream)] == split_keys(tmp_path, "train")


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_begin_in_the_middle(tmp_path, workers):
    collect(tmp_path, [9, 4, 12, 6])
    stream = dataset(tmp_path, shuffle_buffer=5, rank=1, world_size=2)
    whole = batch_keys(stream)
    loader = NoisePairLoader(stream, workers)
    loader.load_state_dict({"epoch": 0, "batch": 2})
    assert batch_keys(loader) == whole[2:] != []


@settings(deadline=None)
@given(st.text(), st.floats(0, 1))
def test_a_prompt_has_one_side_and_keeps_it_as_validation_grows(text, fraction):
    side = split_of(prompt_hash(text), fraction)
    assert split_of(prompt_hash(text), 0.0) == "train" and split_of(prompt_hash(text), 1.0) == "val"
    if side == "val":
        assert split_of(prompt_hash(text), min(1.0, fraction * 1.5)) == "val"


def test_no_prompt_is_on_both_sides(tmp_path):
    """Each prompt has several pairs, spread over the shards."""
    writer = ShardWriter(tmp_path, CONFIG)
    for unit in range(3):
        writer.write(unit, [make_pair(20 * unit + i, text=f"prompt {i}") for i in range(20)])
    sides = [{int(key) % 20 for key in split_keys(tmp_path, split)} for split in ("train", "val")]
    assert all(sides) and sides[0].isdisjoint(sides[1]) and sides[0] | sides[1] == set(range(20))


def test_a_shard_cut_in_the_stream_names_the_file(tmp_path):
    collect(tmp_path, [8])
    path = tmp_path / "pairs-000000.tar"
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    content = path.read_bytes()[: last.offset_data + last.size]  # without the padding, whose loss loses nothing
    for length in [*range(0, len(content), 512), len(content) // 2 + 7, len(content) - 1]:
        replace_shard(tmp_path, content[:length])
        with pytest.raises(UserError, match=r"pairs-000000\.tar is damaged.*collect\.py") as error:
            list(read_shard(tmp_path, ShardIndex.load(tmp_path).shards[0]))
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
    with pytest.raises(UserError, match=r"pairs-000000\.tar is damaged \(its checksum"):
        list(dataset(tmp_path, batch_size=1))
    replace_shard(tmp_path, content)
    try:
        batches = list(dataset(tmp_path, batch_size=1))
    except UserError as error:
        assert "pairs-000000.tar" in str(error) and "\n" not in str(error)
    else:
        assert batch_keys(batches) == [[key] for key in split_keys(tmp_path, "train")]


def test_every_shard_is_hashed_once(tmp_path, monkeypatch):
    collect(tmp_path, [2, 3])
    hashed, digest = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: hashed.append(file.name) or digest(file, name))
    for _ in range(2):
        assert len(split_keys(tmp_path, "train") + split_keys(tmp_path, "val")) == 5
    assert sorted(hashed) == [str(tmp_path / f"pairs-00000{unit}.tar") for unit in (0, 1)]


def test_a_shard_swapped_for_another_is_refused(tmp_path):
    """The same size and readable, but not what was recorded."""
    collect(tmp_path, [2, 2])
    other = (tmp_path / "pairs-000001.tar").read_bytes()
    list(read_shard(tmp_path, ShardIndex.load(tmp_path).shards[0]))  # already found good once
    overwrite_shard(tmp_path, other)
    with pytest.raises(UserError, match=r"pairs-000000\.tar is damaged \(its checksum is not the one in index\.json"):
        list(dataset(tmp_path))


def test_a_prompt_that_the_index_does_not_know_is_refused(tmp_path):
    collect(tmp_path, [2])
    rewrite_entry(tmp_path, prompts=["ffffffff"] * 2)
    with pytest.raises(UserError, match=r"pairs-000000\.tar.*000000000.*index\.json"):
        list(dataset(tmp_path))


@pytest.mark.parametrize("samples", [1, 3])
def test_another_number_of_samples_than_recorded_is_refused(tmp_path, samples):
    collect(tmp_path, [2])
    rewrite_entry(tmp_path, samples=samples, prompts=["ffffffff"] * samples)
    with pytest.raises(UserError, match=r"pairs-000000\.tar is damaged"):
        list(read_shard(tmp_path, ShardIndex.load(tmp_path).shards[0]))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_is_still_one_line(tmp_path, workers):
    collect(tmp_path, [8])
    stream = dataset(tmp_path)
    os.truncate(tmp_path / "pairs-000000.tar", 5000)
    with pytest.raises(UserError, match=r"pairs-000000\.tar is damaged") as error:
        list(NoisePairLoader(stream, workers))
    assert "\n" not in str(error.value)


def test_a_pair_of_another_shape_is_refused(tmp_path):
    collect(tmp_path, [8])
    shards = ShardIndex.load(tmp_path).shards
    stream = NoisePairDataset(tmp_path, shards, "train", VAL_FRACTION, 2, (4, 8, 8), EMBEDS_SHAPE)
    with pytest.raises(UserError, match="noise is 4x2x2, not 4x8x8"):
        list(stream)
    with pytest.raises(UserError, match="pooled is 6, not 7"):
        list(dataset(tmp_path, pooled_shape=(7,)))
