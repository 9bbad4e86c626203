"""Training on the device: interrupted and resumed, in mixed precision, and on several ranks."""

import json
import os
import subprocess
import sys

import pytest
import torch

from golden_noise.training.job import train
from golden_noise.training.module import NPNetModule
from tests.forked import ROOT
from tests.jobs import SMALL_TRAINING

SMALL = [*SMALL_TRAINING, "prompts.count=60", "collection.shard_size=30", "recipe.epochs=2", "callbacks.last.minutes=0"]


class Stopped(Exception):
    pass


@pytest.fixture(params=[pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """On the CPU, tests/training has a faster test of each of these."""
    return request.param


@pytest.fixture
def start(compose_job, tmp_path, device):
    """Trains on the device, in a folder of its own."""

    def run(folder, *options):
        places = [f"folder={tmp_path}/{folder}", f"device={device}", "+trainer.deterministic=warn"]
        train(compose_job("train", *SMALL, *places, *options))
        return torch.load(tmp_path / folder / "checkpoints/last.ckpt", weights_only=True)

    return run


def test_a_training_that_is_interrupted_goes_on_to_the_same_weights(start, monkeypatch):
    step = NPNetModule.training_step

    def interrupted(module, *arguments):
        if module.trainer.global_step == 3:
            raise Stopped
        return step(module, *arguments)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(NPNetModule, "training_step", interrupted)
        start("resumed")
    whole, resumed = start("whole"), start("resumed")
    assert whole["global_step"] == resumed["global_step"] > 3
    for name, value in whole["state_dict"].items():
        torch.testing.assert_close(resumed["state_dict"][name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_learns_what_full_precision_does(start, device, precision):
    if (device, precision) == ("cpu", "16-mixed"):
        pytest.skip("Lightning has no such precision on a CPU")
    full, mixed = (
        start(name, f"trainer.precision={name}", "recipe.epochs=1")["state_dict"] for name in ("32-true", precision)
    )
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in mixed.values())
    far = sum((mixed[name] - value).square().sum() for name, value in full.items())
    assert far.sqrt() < 0.1 * sum(value.square().sum() for value in full.values()).sqrt()


def test_the_denoisers_adapters_are_trained_with_checkpointing(start, device):
    options = ["model=denoiser_lora", "model.npnet.rank=4", "pipeline.model.dtype=bfloat16", "recipe.epochs=1"]
    weights = start("run", *options, "model.npnet.gradient_checkpointing=true")["state_dict"]
    assert any(value.abs().max() > 0 for name, value in weights.items() if "lora_B" in name)
    assert {value.dtype for value in weights.values()} == {torch.float32}


COMPARE = """
import hashlib, json, os, pathlib
import torch
from lightning import Callback


class CompareRanks(Callback):
    def on_train_end(self, trainer, module):
        digest = hashlib.sha256()
        for value in module.npnet.state_dict().values():
            digest.update(value.detach().cpu().numpy().tobytes())
        facts = {"weights": digest.hexdigest(), "ranks": trainer.world_size, "device": module.device.type}
        facts["backend"] = torch.distributed.get_backend()
        pathlib.Path(os.environ["COMPARE_FOLDER"], f"rank{trainer.global_rank}.json").write_text(json.dumps(facts))
"""


def test_ranks_end_with_equal_weights(device, tiny_sdxl, tmp_path):
    """Over NCCL on as many GPUs as there are, up to two: it joins no two ranks on one."""
    ranks = 2 if device == "cpu" else min(2, torch.cuda.device_count())
    (tmp_path / "compare_ranks.py").write_text(COMPARE)
    quick = ["recipe=shapes", "collection.select_by=null", "evaluate=false", "sample_every_n_epochs=0", "logger=null"]
    places = [f"pipeline.model.source={tiny_sdxl}", f"paths.outputs={tmp_path}/outputs", f"data_dir={tmp_path}/pairs"]
    trainer = [f"trainer={'ddp_cpu' if device == 'cpu' else 'ddp'}", f"devices={ranks}", f"device={device}"]
    compare = "+callbacks.compare._target_=compare_ranks.CompareRanks"
    command = [sys.executable, "train.py", "name=run", *quick, *places, *trainer, *SMALL, "recipe.epochs=1", compare]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}", "COMPARE_FOLDER": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    facts = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(ranks)]
    assert len({each["weights"] for each in facts}) == 1
    expected = ("gloo", "cpu") if device == "cpu" else ("nccl", "cuda")
    assert {(each["backend"], each["device"], each["ranks"]) for each in facts} == {(*expected, ranks)}
