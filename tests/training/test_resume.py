"""A training under a name that has one already: it goes on, or is refused in one line and nothing is touched."""

import hashlib
import os
import signal

import pytest
import torch

from golden_noise.collecting.job import collect
from golden_noise.errors import UserError
from golden_noise.sharing.claims import alone
from golden_noise.training.checkpoints import resumable
from golden_noise.training.job import train
from golden_noise.training.module import NPNetModule
from tests.jobs import SMALL_TRAINING

SMALL = [*SMALL_TRAINING, "prompts.count=60", "collection.shard_size=30", "recipe.epochs=1"]


@pytest.fixture
def start(compose_job, tmp_path):
    """Trains in one folder."""

    def run(*options):
        train(compose_job("train", *SMALL, *options))
        return torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)

    return run


def content(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


OTHERS = [
    (
        ["recipe.lr=1e-6", "seed=7", "model.npnet.target=difference"],
        "was made with seed=0, model.npnet.target=golden, model.optimizer.lr=0.003, "
        "now seed=7, model.npnet.target=difference, model.optimizer.lr=1e-06",
    ),
    (["model=unet"], "model.npnet.svd=true"),
    (
        ["model.optimizer._target_=torch.optim.SGD", "+model.optimizer.momentum=0.9"],
        "made with model.optimizer._target_=torch.optim.AdamW, model.optimizer.momentum=(absent), now "
        "model.optimizer._target_=torch.optim.SGD, model.optimizer.momentum=0.9",
    ),
    (["recipe.batch_size=32"], "made with data.batch_size=16, now data.batch_size=32"),
    (["prompts.count=30"], "pairs.made_by.prompts.count=60, now pairs.made_by.prompts.count=30"),
    (["trainer.precision=bf16-mixed"], "made with trainer.precision=32-true"),
    (["trainer.max_epochs=0"], "has trained 1 epochs, more than trainer.max_epochs=0"),
]


def test_other_settings_are_refused_and_nothing_is_touched(start, tmp_path):
    start()
    before = content(tmp_path / "run")
    for options, message in OTHERS:
        with pytest.raises(UserError) as error:
            start(*options)
        text = str(error.value)
        assert message in text and "\n" not in text and "name=NAME" in text
        assert content(tmp_path / "run") == before


def test_other_pairs_are_refused(start, compose_job, tmp_path):
    start()
    before = content(tmp_path / "run")
    elsewhere = ["search=zigzag", f"data_dir={tmp_path}/others"]
    with pytest.raises(UserError, match=r"pairs\.made_by\.search\._target_=golden_noise\.search\.redenoise"):
        start(*elsewhere)
    assert not (tmp_path / "others").exists()  # said before they are collected
    collect(compose_job("collect", "prompts.count=90", "collection.shard_size=30", f"data_dir={tmp_path}/more"))
    with pytest.raises(UserError, match=r"prompts\.count=60, now .*prompts\.count=90"):
        start(f"data_dir={tmp_path}/more", "pipeline.bundled=false")
    assert content(tmp_path / "run") == before


@pytest.mark.parametrize("where", ["file://{}/pairs", "{}/pairs/pairs-{{000000..000001}}.tar"])
def test_pairs_that_no_training_collects_say_themselves_what_made_them(start, compose_job, tmp_path, where):
    """Of other settings than this command line has: a URL's, and chosen shards."""
    collect(compose_job("collect", "prompts.count=90", "collection.shard_size=45"))
    place = f"data_dir='{where.format(tmp_path)}'"
    first = start(place)
    again = start(place, "recipe.epochs=2")
    assert again["global_step"] == 2 * first["global_step"]


def test_more_epochs_other_workers_and_other_places_go_on(start, compose_job, tmp_path):
    first = start()
    os.rename(tmp_path / "pairs", tmp_path / "moved")
    os.rename(tmp_path / "run", tmp_path / "renamed")
    places = [f"data_dir={tmp_path}/moved", f"folder={tmp_path}/renamed"]
    train(compose_job("train", *SMALL, "trainer.max_epochs=2", "data.num_workers=0", *places))
    second = torch.load(tmp_path / "renamed/checkpoints/last.ckpt", weights_only=True)
    assert second["epoch"] == first["epoch"] + 1 and second["global_step"] == 2 * first["global_step"]
    assert (tmp_path / "renamed/npnet/best/training.yaml").is_file()
    assert not (tmp_path / "run").exists() and not (tmp_path / "pairs").exists()


def test_the_card_names_the_search_that_made_the_pairs(start, tmp_path):
    collect_and_train = start("evaluate=false")
    assert collect_and_train["epoch"] == 0
    start("pipeline.bundled=false", "search=zigzag")  # pairs of a pipeline that is not bundled are there already
    assert "| search | Redenoise(" in (tmp_path / "run/npnet/best/README.md").read_text()


def test_a_finished_run_is_not_trained_on(start):
    first, again = start(), start()
    assert again["global_step"] == first["global_step"]
    assert all(torch.equal(value, again["state_dict"][name]) for name, value in first["state_dict"].items())


def test_a_run_that_does_not_say_what_made_it_is_refused(start, tmp_path):
    start()
    identity = tmp_path / "run/identity.json"
    for text, reason in (("[]", "is damaged"), ("{", "is damaged"), (None, "is missing, which earlier versions")):
        identity.unlink() if text is None else identity.write_text(text)
        with pytest.raises(UserError, match=f"identity.json {reason}.*give another name=NAME"):
            start()


def test_a_run_that_left_nothing_binds_nobody(start):
    with pytest.raises(UserError, match="nothing was trained"):
        start("trainer.max_epochs=0", "seed=3")
    assert start()["epoch"] == 0


# Damaged checkpoints ------------------------------------------------------------------------------------------


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


DAMAGE = {
    "truncated": lambda path: os.truncate(path, 20000),
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"\x80\x02garbage" * 1000),
    "flipped": flip,
    "folder": replace_by_folder,
    "other": lambda path: torch.save({"weights": torch.zeros(3)}, path),
    "list": lambda path: torch.save([1, 2], path),
}


def test_a_damaged_checkpoint_is_refused_with_what_to_do(start, tmp_path):
    start()
    last = tmp_path / "run/checkpoints/last.ckpt"
    whole = last.read_bytes()
    for name, damage in DAMAGE.items():
        damage(last)
        with pytest.raises(
            UserError, match=r"last\.ckpt is damaged or not a checkpoint: put .*best\.ckpt in its"
        ) as error:
            start()
        assert "\n" not in str(error.value), name
        last.rmdir() if last.is_dir() else last.unlink()
        last.write_bytes(whole)
    last.write_bytes((last.parent / "best.ckpt").read_bytes())  # as the message says
    start("trainer.max_epochs=2")
    flip(last.parent / "best.ckpt")
    with pytest.raises(UserError, match=r"best\.ckpt is damaged or not a checkpoint: delete .*/run to start again"):
        start("trainer.max_epochs=3")


def test_a_checkpoint_of_another_network_is_refused(start, tmp_path):
    start()
    path = tmp_path / "run/checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["npnet.alpha"] = torch.zeros(7)
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match=r"of another network \(npnet\.alpha has shape \(7,\), not"):
        start()


def test_without_a_checkpoint_there_is_nothing_to_resume(tmp_path):
    assert resumable(tmp_path, torch.nn.Identity(), None) is None


def test_a_folder_in_which_another_process_trains_is_refused(start, tmp_path):
    (tmp_path / "run").mkdir()
    with alone(tmp_path / "run", "training"), pytest.raises(UserError, match="another process works in"):
        start()
    assert not (tmp_path / "run/checkpoints").exists()


def test_neither_fewer_steps_nor_a_lost_checkpoint_go_unnoticed(start, tmp_path):
    start()
    with pytest.raises(UserError, match=r"has trained \d+ steps, more than trainer.max_steps=1: raise it"):
        start("+trainer.max_steps=1")
    (tmp_path / "run/checkpoints/last.ckpt").unlink()
    before = content(tmp_path / "run")
    with pytest.raises(UserError, match=r"holds a network, but no checkpoint .*last.ckpt to resume from"):
        start()
    assert content(tmp_path / "run") == before


def test_a_terminated_training_saves_the_step_it_is_in(start, tmp_path, monkeypatch):
    plain = NPNetModule.training_step

    def terminate(self, batch, number):
        if number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, batch, number)

    monkeypatch.setattr(NPNetModule, "training_step", terminate)
    with pytest.raises(SystemExit) as ended:
        start("recipe.batch_size=8")
    assert ended.value.code == 128 + signal.SIGTERM
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 2


def test_a_terminated_training_ends_as_such_and_goes_on(start, tmp_path, monkeypatch):
    plain = NPNetModule.on_train_batch_end

    def terminate(self, *args):
        plain(self, *args)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(NPNetModule, "on_train_batch_end", terminate)
        with pytest.raises(SystemExit) as ended:
            start()
    assert ended.value.code == 128 + signal.SIGTERM
    assert not (tmp_path / "run/npnet").exists()
    assert start()["epoch"] == 0
