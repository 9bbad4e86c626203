"""Checkpoints inside an epoch: written whole, and every pair is seen once, whatever the number of ranks is then."""

from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightning import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint

from golden_noise.training import AtomicCheckpointIO, SaveLast
from golden_noise.training.checkpoints import load

from .factory import collect
from .test_datamodule import SIZES, fit
from .test_loader import batch_keys, loader, split_keys


class Killed(Exception):
    pass


class SaveAndDie(SaveLast):
    """Ends the training right after a checkpoint, as a kill does."""

    def __init__(self, folder, saves=1, minutes=0.0):
        super().__init__(folder, minutes)
        self.saves = saves

    def _save(self, trainer):
        super()._save(trainer)
        self.saves -= 1
        if self.saves == 0:
            raise Killed


def killed_and_resumed(folder, saves, first, then, callbacks=list):
    """The checkpoint of a training that was killed after so many, and the model that went on from there."""
    with pytest.raises(Killed):
        fit(folder / "pairs", [*callbacks(), SaveAndDie(folder, saves)], plugins=[AtomicCheckpointIO()], **first)
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    model = fit(folder / "pairs", [*callbacks(), SaveLast(folder)], folder / "last.ckpt", **then)
    return checkpoint, model


@pytest.mark.parametrize("saves", [1, 3, 5, 7])
@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate_grad_batches": 2}, {"limit_train_batches": 4}, {"check_val_every_n_epoch": 2}],
    ids=str,
)
def test_a_killed_training_goes_on_with_the_next_pair(tmp_path, saves, options):
    collect(tmp_path / "pairs", SIZES)
    options = {"num_sanity_val_steps": 0, **options}
    whole = fit(tmp_path / "pairs", **options)
    checkpoint, resumed = killed_and_resumed(tmp_path, saves, options, options)
    done = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"]
    assert 0 < done < len(whole.seen)
    assert resumed.seen == whole.seen[done:]
    assert resumed.validated == whole.validated[-len(resumed.validated) :]
    assert torch.equal(resumed.scale, whole.scale)


class AsksForTheLength(Callback):
    """As a schedule does that ends with the training."""

    def setup(self, trainer, pl_module, stage):
        assert trainer.estimated_stepping_batches > 0


@pytest.mark.parametrize("saves", [2, 7])
def test_a_schedule_that_asks_for_the_length_before_changes_nothing(tmp_path, saves):
    collect(tmp_path / "pairs", SIZES)
    whole = fit(tmp_path / "pairs", num_sanity_val_steps=0)
    options = {"num_sanity_val_steps": 0}
    checkpoint, resumed = killed_and_resumed(tmp_path, saves, options, options, lambda: [AsksForTheLength()])
    done = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"]
    assert resumed.seen == whole.seen[done:]


def test_averaged_weights_go_on_inside_an_epoch(tmp_path):
    collect(tmp_path / "pairs", SIZES)

    def averaging():
        return [EMAWeightAveraging(use_buffers=False, decay=0.5)]

    whole = fit(tmp_path / "pairs", averaging(), default_root_dir=tmp_path)
    _, resumed = killed_and_resumed(tmp_path, 2, {}, {}, averaging)
    assert torch.equal(resumed.scale, whole.scale)


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 3), (1, 30)])
@pytest.mark.parametrize("saves", [1, 2])
def test_a_step_of_another_size_goes_on_with_the_next_pair(tmp_path, saves, before, after):
    """The batch size stands for the number of ranks: what counts is how many pairs a step of all ranks has."""
    collect(tmp_path / "pairs", [20, 20, 10])
    parts = ({"data": {"batch_size": size}, "num_sanity_val_steps": 0} for size in (before, after))
    _, resumed = killed_and_resumed(tmp_path, saves, *parts)
    whole = fit(tmp_path / "pairs", data={"batch_size": 1}, max_epochs=1)
    done = saves * before
    rest = [key for batch in resumed.seen for key in batch]
    left = len(whole.seen) - done
    count = left // after * after
    assert rest[:count] == [key for (key,) in whole.seen[done : done + count]]
    per_epoch = len(whole.seen) // after * after
    for start in (count, count + per_epoch):  # two whole epochs follow
        epoch = rest[start : start + per_epoch]
        assert len({*epoch}) == len(epoch) == per_epoch
    assert len(rest) == count + 2 * per_epoch
    validation = fit(tmp_path / "pairs", data={"batch_size": after}, max_epochs=1, num_sanity_val_steps=0).validated
    assert resumed.validated == 3 * validation


def test_an_epoch_of_which_too_few_pairs_are_left_for_a_step_is_over(tmp_path):
    collect(tmp_path / "pairs", [20, 20, 10])
    few, many = ({"data": {"batch_size": size}, "num_sanity_val_steps": 0} for size in (8, 30))
    _, resumed = killed_and_resumed(tmp_path, 1, few, many)
    assert resumed.seen == fit(tmp_path / "pairs", **many).seen[1:]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5), epoch=st.integers(0, 2))
def test_every_pair_of_an_epoch_is_seen_once_on_any_numbers_of_ranks(tmp_path_factory, data, sizes, epoch):
    """An epoch in parts, each with its own number of ranks and batch size, each from the state of any rank before."""
    folder = tmp_path_factory.mktemp("pairs")
    collect(folder, [*sizes, 8])
    pairs, seen, state = split_keys(folder, "train"), Counter(), {"epoch": epoch, "pairs": 0}
    while state["epoch"] == epoch:
        world_size, batch_size = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
        options = {"batch_size": batch_size, "world_size": world_size, "shuffle_shards": 2}
        ranks = [loader(folder, rank=rank, **options) for rank in range(world_size)]
        for rank in ranks:
            rank.load_state_dict(state)
        if ranks[0].epoch > epoch:
            break  # too few pairs are left for a step of all ranks
        steps, states = data.draw(st.integers(1, max(1, ranks[0].left))), []
        for rank in ranks:
            stream = iter(rank)
            seen.update(key for _ in range(steps) for key in next(stream)["key"])
            states.append(rank.state_dict())
        assert all(found == states[0] for found in states)
        state = states[0]
    assert {*seen} <= {*pairs} and set(seen.values()) <= {1}
    assert len(pairs) - len(seen) < batch_size * world_size


def test_the_end_of_an_epoch_is_the_start_of_the_next(tmp_path):
    collect(tmp_path, [20])
    one = loader(tmp_path, batch_size=2)
    list(one)
    assert one.state_dict() == {"epoch": 1, "pairs": 0}
    resumed = loader(tmp_path, batch_size=1, shuffle_shards=1)
    resumed.load_state_dict(one.state_dict())
    assert batch_keys(resumed) == batch_keys(loader(tmp_path, batch_size=1, shuffle_shards=1, epoch=1))


def test_a_checkpoint_inside_an_epoch_is_not_the_best(tmp_path):
    """Only validated weights are candidates, and what was best stays so over a kill."""

    def best():
        return [ModelCheckpoint(tmp_path, "best", enable_version_counter=False, every_n_epochs=1)]

    collect(tmp_path / "pairs", SIZES)
    steps = len(fit(tmp_path / "pairs", max_epochs=1).seen)
    checkpoint, _ = killed_and_resumed(tmp_path, steps + 2, {}, {"max_epochs": 1}, best)
    assert checkpoint["global_step"] == steps + 2  # in the second epoch
    assert load(tmp_path / "best.ckpt", "")["global_step"] == steps
    (state,) = [state for name, state in checkpoint["callbacks"].items() if "ModelCheckpoint" in name]
    assert state["best_model_path"] == str(tmp_path / "best.ckpt")


class Breaks:
    def __reduce__(self):
        raise Killed


def test_a_checkpoint_that_is_cut_off_leaves_the_one_before(tmp_path):
    io, path = AtomicCheckpointIO(), tmp_path / "checkpoints/last.ckpt"
    io.save_checkpoint({"weights": torch.ones(1000)}, path)
    with pytest.raises(Killed):
        io.save_checkpoint({"weights": torch.zeros(1000), "then": Breaks()}, path)
    assert torch.equal(io.load_checkpoint(path)["weights"], torch.ones(1000))
    io.save_checkpoint({"weights": torch.zeros(1000)}, path)
    assert torch.equal(io.load_checkpoint(path)["weights"], torch.zeros(1000))
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize(("minutes", "saves"), [(None, 3), (60, 3), (0, None)])
def test_how_often_it_saves(tmp_path, minutes, saves):
    collect(tmp_path / "pairs", SIZES)
    counted = SaveAndDie(tmp_path, saves=10**6, minutes=minutes)
    seen = fit(tmp_path / "pairs", [counted]).seen
    assert 10**6 - counted.saves == (saves or len(seen))  # after every batch, of an epoch's last one at its end
