"""The distillation of the miniature to few steps, a handful of steps of it."""

import json
from itertools import pairwise

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from experiments.miniature import distil
from experiments.miniature.train import CAPTIONS, fit
from golden_noise.shapes.prompts import split_captions

TINY = ["teacher.pairs=6", "teacher.steps=2", "student.steps=2", "student.batch_size=2", "student.rank=2", "count=6"]
SETTINGS = OmegaConf.create({"steps": 52, "batch_size": 1, "lr": 1e-3, "rank": 2})


class StoppedError(Exception):
    pass


class StoppedStage(distil.TurboStage):
    """Stops after the checkpoint of step 50, as a killed process would."""

    def on_train_batch_start(self, *args):
        super().on_train_batch_start(*args)
        if self.global_step == 51:
            raise StoppedError


def stage(kind=distil.TurboStage):
    torch.manual_seed(0)
    stored = {"noise": torch.randn(5, 4, 8, 8), "clean": torch.randn(5, 4, 8, 8), "captions": torch.arange(5)}
    return kind(SETTINGS, 0, distil.load(), stored)


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    """Folder of a distillation of two steps."""
    out = tmp_path_factory.mktemp("distilled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distil, "CHUNK", 4)
        distil.main([f"out={out}", *TINY])
        yield out


@pytest.mark.slow
def test_adapters_can_be_used_and_figures_are_there(distilled):
    tensors = load_file(distilled / "turbo" / distil.WEIGHTS)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    student = distil.load({"source": str(distilled / "turbo"), "weight_name": distil.WEIGHTS})
    assert student.sample(student.encode(["a red circle"]), torch.randn(1, 4, 8, 8)).isfinite().all()
    figures = json.loads((distilled / "figures.json").read_text())
    assert all(set(figures[name]) == {"1", "2", "4", "8"} for name in ("student", "bundled", "guided"))


@pytest.mark.slow
def test_pairs_are_the_teachers_of_training_captions(distilled):
    config = OmegaConf.load(distilled / "config.yaml")
    pipeline = distil.load()
    pairs = distil.teacher_pairs(config, pipeline, distilled / "pairs")
    texts = [CAPTIONS[i] for i in pairs["captions"]]
    assert not {*texts} & {text for texts in split_captions("test").values() for text in texts}
    with torch.no_grad():
        clean = pipeline.clean(pairs["noise"], pipeline.encode(texts), steps=2, guidance=2.0)
    torch.testing.assert_close(pairs["clean"], clean, atol=5e-3, rtol=5e-3)  # stored as float16


@pytest.mark.slow
def test_finished_stages_are_skipped(distilled):
    files = {path: path.stat().st_mtime_ns for path in distilled.rglob("*.safetensors")}
    assert len(files) == 3  # two chunks and the adapters
    distil.main([f"out={distilled}", *TINY])
    assert {path: path.stat().st_mtime_ns for path in distilled.rglob("*.safetensors")} == files


def test_the_loss_is_zero_where_one_move_leads_to_the_target(monkeypatch):
    """At every step count and level, from the student's own latents."""
    torch.manual_seed(0)
    ours, noise, captions = stage(), torch.randn(2, 4, 8, 8), torch.tensor([3, 4])
    schedule, prompt = ours.pipeline.schedule, ours.embeddings[captions]
    for steps in distil.COUNTS:
        levels = [*schedule.timesteps(steps).tolist(), 0]
        latents = noise
        for taken, (start, end) in enumerate(pairwise(levels)):
            drawn = 2 * [distil.COUNTS.index(steps), taken]
            with monkeypatch.context() as patch, torch.no_grad():
                prediction = ours.pipeline.predict(latents, start, prompt, 1)
                clean = schedule.move(latents, prediction, start, 0)
                patch.setattr(torch, "randint", lambda *args, drawn=drawn: torch.tensor(drawn.pop(0)))
                assert ours.loss(noise, clean, captions) < 1e-8
                assert ours.loss(noise, clean + 1, captions).item() == pytest.approx(1, abs=1e-3)
            latents = schedule.move(latents, prediction, start, end)


def test_only_adapters_learn():
    ours = stage()
    ours.loss(*next(iter(ours.batches(range(1))))).backward()
    learning = {name for name, parameter in ours.named_parameters() if parameter.grad is not None}
    assert learning and all("lora_" in name for name in learning)


@pytest.mark.slow
def test_an_interrupted_distillation_ends_like_one_in_one_go(tmp_path):
    whole = fit(stage(), tmp_path / "whole")
    with pytest.raises(StoppedError):
        fit(stage(StoppedStage), tmp_path / "parts")
    resumed = fit(stage(), tmp_path / "parts")
    assert resumed.global_step == whole.global_step == 52
    found, untrained = resumed.state_dict(), stage().state_dict()
    for name, expected in whole.state_dict().items():
        torch.testing.assert_close(found[name], expected, atol=1e-6, rtol=0, msg=name)
    assert any(not torch.equal(value, untrained[name]) for name, value in found.items())
