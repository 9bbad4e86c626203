"""Two further miniatures behind the bundled text encoders and autoencoder: one trained anew, one distilled.

Each is a denoiser's weights in a file, for `pipeline.model.unet`. Training goes on where it was killed.
"""

import copy
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from lightning.pytorch import seed_everything
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from experiments.miniature.train import CAPTIONS, DenoiserStage, LatentBatches, Stage, fit, stored_latents
from experiments.study import OUTPUTS, SMOKE, miniature, once
from golden_noise.files import atomic_file
from golden_noise.pipelines.schedules import Schedule
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.shapes import models

FOLDER = OUTPUTS / "second_models"
WEIGHTS = "unet.safetensors"
SEED = 11
LATENTS = 2000 if SMOKE else 30_000
ANEW = {"steps": 20 if SMOKE else 2000, "batch_size": 128, "lr": 1.2e-3, "prompt_dropout": 0.1, "ema": 0.99}
DISTILLED = {"steps": 20 if SMOKE else 500, "batch_size": 64, "lr": 3e-4}
GUIDANCE, STEPS = 2.0, 5  # of the teacher, which takes two steps for each of the student's


def latents(pipeline: SDXLPipeline) -> dict[str, Tensor]:
    FOLDER.mkdir(parents=True, exist_ok=True)
    return stored_latents(OmegaConf.create({"latents": LATENTS, "seed": SEED}), pipeline.pipe.vae, FOLDER)


def trained_anew() -> Path:
    """A denoiser of the same shape, from other initial weights, on other scenes, for less time."""

    def make() -> None:
        seed_everything(SEED, verbose=False)
        pipeline = miniature(2 * STEPS, GUIDANCE)
        pipe = pipeline.pipe
        pipe.unet = models.build_unet()
        stage = DenoiserStage(OmegaConf.create(ANEW), SEED, pipe, latents(pipeline))
        for encoder in (stage.net.text_encoder, stage.net.text_encoder_2):
            encoder.requires_grad_(False)
        save(fit(stage, FOLDER / "anew-stage").average.module.unet, FOLDER / "anew" / WEIGHTS)

    once(FOLDER / "anew" / WEIGHTS, make)
    return FOLDER / "anew"


class DistilledStage(Stage):
    """Progressive distillation (arXiv 2202.00512): one step without guidance for two of the teacher's with it."""

    number = 5

    def __init__(self, settings: DictConfig, seed: int, pipeline: SDXLPipeline, stored: dict[str, Tensor]):
        super().__init__(settings, seed)
        self.teacher, self.stored = pipeline, stored
        self.student = copy.deepcopy(pipeline)
        self.unet = self.student.denoiser.requires_grad_(True)
        self.embeddings = pipeline.encode(CAPTIONS)
        self.levels = pipeline.schedule.timesteps(2 * STEPS).tolist()

    def batches(self, steps: range) -> Any:
        return LatentBatches(self.stored, (self.seed, self.number), self.settings.batch_size, steps)

    def loss(self, latents: Tensor, captions: Tensor) -> Tensor:
        prompt = self.embeddings[captions]
        # 801 to 601, and so on to 1; from there to the image no guidance is needed.
        step = 1 + 2 * int(torch.randint(STEPS - 1, ()))
        start, middle, end = self.levels[step : step + 3]
        schedule = self.teacher.schedule
        noisy = self.teacher.pipe.scheduler.add_noise(latents, torch.randn_like(latents), torch.tensor([int(start)]))
        reached = schedule.move(noisy, self.teacher.predict(noisy, start, prompt, GUIDANCE), start, middle)
        reached = schedule.move(reached, self.teacher.predict(reached, middle, prompt, GUIDANCE), middle, end)
        wanted = straight(schedule, noisy, reached, start, end)
        return F.mse_loss(self.student.denoise(noisy, start, prompt), wanted)


def straight(schedule: Schedule, latents: Tensor, reached: Tensor, start: float, end: float) -> Tensor:
    """The prediction whose one move leads from the latents at `start` to those reached at `end`.

    Moves are linear in their prediction.
    """
    zero, one = torch.zeros_like(latents), torch.ones_like(latents)
    return (reached - schedule.move(latents, zero, start, end)) / schedule.move(zero, one, start, end)


def distilled() -> Path:
    """The bundled denoiser after distillation to five steps without guidance."""

    def make() -> None:
        seed_everything(SEED, verbose=False)
        pipeline = miniature(2 * STEPS, GUIDANCE)
        stage = DistilledStage(OmegaConf.create(DISTILLED), SEED, pipeline, latents(pipeline))
        save(fit(stage, FOLDER / "distilled-stage").unet, FOLDER / "distilled" / WEIGHTS)

    once(FOLDER / "distilled" / WEIGHTS, make)
    return FOLDER / "distilled"


def save(unet: torch.nn.Module, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous() for name, value in unet.state_dict().items()}
    with atomic_file(path) as file:
        file.write(safetensors.torch.save(weights))
