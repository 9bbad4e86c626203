"""What must hold at any size: equal steps, every pair once, also resumed on other ranks; and a set of many shards."""

import itertools
import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from golden_noise.pairs import ShardEntry, ShardIndex, shard_name
from golden_noise.pairs.dataset import Batches
from golden_noise.pairs.loader import NoisePairLoader
from golden_noise.pairs.order import deal, epoch_order, steps_per_rank, stored_order
from golden_noise.sharing.claims import Claims


class Rows(Batches):
    """Shards of pairs that are nothing but their places."""

    def __init__(self, sizes):
        rng = np.random.default_rng(0)
        self.shards = [rng.integers(0, 2**32, size, np.uint32) for size in sizes]

    @property
    def hashes(self):
        return self.shards

    def read(self, epoch, order):
        return {"pairs": [tuple(row) for row in order.tolist()]}


def ranks_of(rows, world_size, split, state=None):
    ranks = [NoisePairLoader(rows, split, 0.3, 2, 3, rank=rank, world_size=world_size) for rank in range(world_size)]
    for rank in ranks if state else ():
        rank.load_state_dict(state)
    return ranks


def pairs(steps):
    return [tuple(pair) for step in steps for batch in step for pair in batch["pairs"]]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    worlds=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    share=st.floats(0, 1),
    split=st.sampled_from(["train", "val"]),
)
def test_an_epoch_has_every_pair_once_however_often_it_goes_on_elsewhere(sizes, worlds, share, split):
    rows, state, seen = Rows(sizes), None, []
    for part, world in enumerate(worlds, 1):
        ranks = ranks_of(rows, world, split, state)
        if ranks[0].epoch:  # what is left does not fill a step of so many
            break
        (steps,) = {rank.left for rank in ranks}
        taken = steps if part == len(worlds) else int(share * steps)
        done = list(itertools.islice(zip(*map(iter, ranks), strict=True), taken)) if steps else []
        assert len(done) == taken
        seen += pairs(done)
        (state,) = {tuple(rank.state_dict().items()) for rank in ranks}
        state = dict(state)
    expected = {tuple(row) for order in stored_order(rows.hashes, split, 0.3) for row in order.tolist()}
    assert len(seen) == len(set(seen)) and set(seen) <= expected
    if split == "train":
        assert len(expected) - len(seen) < 2 * max(worlds)


def test_a_rank_opens_few_shards_and_all_take_equal_steps():
    """A quarter of a million pairs in 1,000 shards on 64 ranks, and on 48 from the middle on."""
    stored = stored_order(Rows([250] * 1000).hashes, "train", 0.1)
    order = epoch_order(stored, 16, seed=0, epoch=3)
    half = steps_per_rank(len(order), "train", 64, 64) // 2
    first = list(itertools.islice(deal(order, "train", 64, 64), half))
    rest = list(deal(order[half * 64 * 64 :], "train", 64, 48))
    numbers = [batch[:, 0] * 250 + batch[:, 1] for step in (*first, *rest) for batch in step]
    assert {len(number) for number in numbers} == {64} and {len(step) for step in first} == {64}
    seen = np.concatenate(numbers)
    assert len(np.unique(seen)) == len(seen) > len(order) - 64 * 48
    opened = [len(np.unique(batch[:, 0])) for step in first for batch in step]
    assert np.mean(opened) < 3  # of 16 that are mixed


def test_an_index_of_many_shards_is_quick(tmp_path):
    """As ratios to the same with a hundredth: a shard is added at the cost of a line, not of the index."""

    def seconds(count):
        (folder := tmp_path / str(count)).mkdir()
        index = ShardIndex(
            folder, {}, [ShardEntry(shard_name(i), 50, 0, 0, "0" * 64, bytes(200)) for i in range(count)]
        )
        index.save()
        times = []
        for _ in range(20):
            start = time.perf_counter()
            index.add(index.shards[-1])
            times.append(time.perf_counter() - start)
        assert ShardIndex.load(folder).shards == index.shards
        return min(times)

    assert seconds(10_000) < 10 * seconds(100)


def test_many_workers_try_few_claims_of_each_other(tmp_path):
    """Of 50 workers in turns each takes a unit, which would be 1,225 vain tries if all went through them in order."""
    tried = []

    class Counted(Claims):
        def take(self, unit):
            tried.append(unit)
            return super().take(unit)

    finished, workers = set(), [Counted(tmp_path, "pairs") for _ in range(50)]
    taken = [worker.share(range(1000), finished.__contains__) for worker in workers]
    held = [next(units) for units in taken]
    assert len({*held}) == 50 and len(tried) < 200
    for _ in range(5):
        for i, units in enumerate(taken):
            finished.add(held[i])
            workers[i].finish(held[i])
            held[i] = next(units)
    assert len({*held} | finished) == 300 and len(tried) < 1000
    for worker, units in zip(workers, taken, strict=True):
        units.close()
        worker.__exit__()
