import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden_noise.pairs import prompt_hash
from golden_noise.pairs.order import deal, epoch_order, split_of, stored_order


def stored(sizes):
    return [
        np.array([(shard, place) for place in range(size)], np.int32).reshape(-1, 2) for shard, size in enumerate(sizes)
    ]


def names(order):
    return [tuple(pair) for pair in order.tolist()]


SIZES = st.lists(st.integers(0, 20), min_size=1, max_size=12)


@settings(max_examples=300, deadline=None)
@given(
    sizes=SIZES,
    batch_size=st.integers(1, 9),
    world_size=st.integers(1, 9),
    shuffle_shards=st.integers(0, 5),
    epoch=st.integers(0, 3),
)
def test_ranks_share_an_epoch_exactly(sizes, batch_size, world_size, shuffle_shards, epoch):
    """For any shards, also fewer or emptier ones than ranks."""
    pairs = names(np.concatenate(stored(sizes)))
    order = epoch_order(stored(sizes), shuffle_shards, seed=1, epoch=epoch)
    assert sorted(names(order)) == pairs and order.dtype == np.int32
    for split in ("train", "val"):
        steps = [*deal(order, split, batch_size, world_size)]
        assert all(len(batches) == world_size for batches in steps), "a rank that waits for the others hangs"
        seen = [pair for batches in steps for batch in batches for pair in names(batch)]
        assert len(seen) == len(set(seen))
        if split == "train":
            assert all(len(batch) == batch_size for batches in steps for batch in batches)
            assert 0 <= len(pairs) - len(seen) < batch_size * world_size
        elif len(pairs) >= world_size:
            assert sorted(seen) == pairs
            sizes_of = {len(batch) for batches in steps for batch in batches}
            assert min(sizes_of) > 0 and max(sizes_of) <= max(batch_size, 2) and max(sizes_of) - min(sizes_of) <= 1
        else:
            assert seen == []


@given(sizes=SIZES, shuffle_shards=st.integers(0, 5))
def test_a_step_has_the_same_pairs_on_any_number_of_ranks(sizes, shuffle_shards):
    order = epoch_order(stored(sizes), shuffle_shards, seed=0, epoch=2)

    def steps(world_size):
        dealt = deal(order, "train", 12 // world_size, world_size)
        return [{pair for batch in step for pair in names(batch)} for step in dealt]

    assert steps(1) == steps(2) == steps(4)


def test_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        return names(epoch_order(stored([30, 5, 40]), 2, seed, epoch))

    orders = [order(0, 0), order(0, 1), order(1, 0)]
    assert orders == [order(0, 0), order(0, 1), order(1, 0)]
    assert len({tuple(order) for order in orders}) == 3


def test_without_shuffling_the_order_is_that_of_the_index():
    assert names(epoch_order(stored([3, 0, 2]), 0, seed=3, epoch=5)) == [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1)]


@pytest.mark.parametrize(("shuffle_shards", "neighbours"), [(16, 1 / 16), (117, 1 / 117), (1, 1)])
def test_shuffling_is_as_good_as_chance_within_the_shards_that_are_mixed(shuffle_shards, neighbours):
    """A set of the published size: 60,000 pairs in 117 shards.

    Of two pairs in a row, one of `shuffle_shards` comes from the same shard. Where a pair was stored says nothing about
    where it comes in an epoch, nor does where it came in the epoch before.
    """
    sizes = [512] * 117
    epochs = [epoch_order(stored(sizes), shuffle_shards, seed=0, epoch=epoch) for epoch in range(20)]
    same_shard = np.mean([np.mean(order[1:, 0] == order[:-1, 0]) for order in epochs])
    assert same_shard == pytest.approx(neighbours, rel=0.15)
    places = np.array([np.argsort(order[:, 0] * 512 + order[:, 1]) for order in epochs])  # place in the epoch, by pair
    stored_places = np.arange(places.shape[1])
    for others in (np.broadcast_to(stored_places, places[1:].shape), places[:-1]):
        correlations = [np.corrcoef(now, before)[0, 1] for now, before in zip(places[1:], others, strict=True)]
        # Shards are what is shuffled over the whole set, so chance is that of 117 of them.
        assert abs(np.mean(correlations)) < 4 / np.sqrt(117 * len(correlations))
    within = [order[order[:, 0] == 7][:, 1] for order in epochs]  # pairs of a shard are in random order, too
    correlations = [np.corrcoef(np.arange(512), places_of)[0, 1] for places_of in within]
    assert abs(np.mean(correlations)) < 4 / np.sqrt(512 * len(correlations))


@settings(deadline=None)
@given(st.text(), st.floats(0, 1))
def test_a_prompt_has_one_side_and_keeps_it_as_validation_grows(text, fraction):
    side = split_of(prompt_hash(text), fraction)
    assert split_of(prompt_hash(text), 0.0) == "train" and split_of(prompt_hash(text), 1.0) == "val"
    if side == "val":
        assert split_of(prompt_hash(text), min(1.0, fraction * 1.5)) == "val"


def test_no_prompt_is_on_both_sides():
    """Each prompt has several pairs, spread over the shards."""
    prompts = [[prompt_hash(f"prompt {i}") for i in range(20)] for _ in range(3)]
    hashes = [np.array([int(prompt, 16) for prompt in shard], np.uint32) for shard in prompts]
    sides = [
        {place for _, place in names(np.concatenate(stored_order(hashes, split, 0.3)))} for split in ("train", "val")
    ]
    assert all(sides) and sides[0].isdisjoint(sides[1]) and sides[0] | sides[1] == set(range(20))
