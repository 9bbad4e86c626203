"""Distil the miniature to 1, 2 and 4 steps without guidance: adapters for `pipeline=shapes_turbo`.

    python -m experiments.miniature.distil [out=FOLDER] [teacher.pairs=4500] [student.steps=500] ...

The teacher, with guidance and more steps, draws clean latents from starting noises once. The student learns to reach
them from the same noises (knowledge distillation along the deterministic path, Luhman and Luhman, arXiv 2101.02388),
at the levels of its own path, where sampling will lead it. Stages run in order; one whose result exists is skipped, and
an interrupted one goes on from its last checkpoint. The settings are in distil.yaml beside this file.

Shapes: B batch, N pairs; latents are (4, 8, 8).
"""

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionXLPipeline
from lightning.pytorch import seed_everything
from omegaconf import DictConfig, OmegaConf
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save
from torch import Tensor
from torch.utils.data import IterableDataset
from tqdm import tqdm

from experiments.miniature.arguments import read_arguments
from experiments.miniature.train import CAPTION_INDEX, CAPTIONS, SceneBatches, Stage, fit
from golden_noise.files import atomic_file, atomic_folder
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.shapes.metric import ShapesScore
from golden_noise.shapes.prompts import draw_prompts
from golden_noise.shapes.scenes import SIZE

BASE = "package:shapes/weights/pipeline"
SCHEDULER = {"name": "DDIMScheduler", "timestep_spacing": "trailing"}  # every number of steps starts at 999
WEIGHTS = "pytorch_lora_weights.safetensors"
COUNTS = (1, 2, 4)  # steps that the student learns
CHUNK = 125  # pairs in a file
BATCH = 100
# All layers but the norms, by the ends of their names.
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "conv_in", "conv_out", "conv")
EMBEDDINGS = ("time_emb_proj", "linear_1", "linear_2")


def load(lora: dict[str, str] | None = None) -> SDXLPipeline:
    """The miniature on the levels of few-step models, with adapters or without."""
    settings: Any = {"height": SIZE, "width": SIZE, "steps": 1, "guidance": 1.0}
    return SDXLPipeline.load(
        BASE, device="cpu", dtype="float32", scheduler=SCHEDULER, loras={"turbo": lora} if lora else {}, **settings
    )


@torch.no_grad()
def teacher_pairs(config: DictConfig, pipeline: SDXLPipeline, out: Path) -> dict[str, Tensor]:
    """Noises and the teacher's clean latents (N, 4, 8, 8) of training captions (N,), drawn once, a file per chunk."""
    prompts = draw_prompts("train", config.teacher.pairs, config.seed)
    out.mkdir(parents=True, exist_ok=True)
    chunks = []
    for start in tqdm(range(0, len(prompts), CHUNK), desc="teacher"):
        chunk, path = prompts[start : start + CHUNK], out / f"{start:06}.safetensors"
        noise = pipeline.draw_noise([prompt.seed for prompt in chunk])
        if not path.exists():
            embeds = pipeline.encode([prompt.text for prompt in chunk])
            clean = pipeline.clean(noise, embeds, config.teacher.steps, config.teacher.guidance)
            with atomic_file(path) as file:
                file.write(save({"clean": clean.half()}))
        captions = torch.tensor([CAPTION_INDEX[prompt.text] for prompt in chunk])
        chunks.append({"noise": noise, "clean": load_file(path)["clean"].float(), "captions": captions})
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}


class PairBatches(SceneBatches):
    """Batches of pairs, drawn with replacement: noises (B, 4, 8, 8), clean latents likewise, captions (B,)."""

    def __init__(self, stored: dict[str, Tensor], seed: tuple[int, ...], batch_size: int, steps: range):
        super().__init__(seed, batch_size, steps)
        self.stored = stored

    def batch(self, rng: np.random.Generator) -> Any:
        chosen = rng.integers(len(self.stored["captions"]), size=self.batch_size)
        return tuple(self.stored[name][chosen] for name in ("noise", "clean", "captions"))


class TurboStage(Stage):
    """Adapters that lead from any level of the student's own paths to the teacher's clean latents at once.

    The squared error is that of the clean latents: at timestep 999 the noise says next to nothing about them.
    """

    number = 6

    def __init__(self, settings: DictConfig, seed: int, pipeline: SDXLPipeline, stored: dict[str, Tensor]):
        super().__init__(settings, seed)
        self.pipeline, self.stored = pipeline, stored
        torch.manual_seed(seed)
        self.unet: Any = pipeline.denoiser.requires_grad_(False)
        layers = [*ATTENTION, *CONVOLUTIONS, *EMBEDDINGS]
        self.unet.add_adapter(LoraConfig(r=settings.rank, lora_alpha=settings.rank, target_modules=layers))
        self.embeddings = pipeline.encode(CAPTIONS)

    def batches(self, steps: range) -> IterableDataset:
        return PairBatches(self.stored, (self.seed, self.number), self.settings.batch_size, steps)

    def loss(self, noise: Tensor, clean: Tensor, captions: Tensor) -> Tensor:  # type: ignore[override]
        prompt, schedule = self.embeddings[captions], self.pipeline.schedule
        steps = COUNTS[int(torch.randint(len(COUNTS), ()))]
        taken = int(torch.randint(steps, ()))
        levels = [*schedule.timesteps(steps).tolist(), 0]
        latents = noise
        with torch.no_grad():
            for start, end in pairwise(levels[: taken + 1]):
                latents = schedule.move(latents, self.pipeline.predict(latents, start, prompt, 1), start, end)
        level = levels[taken]
        reached = schedule.move(latents, self.pipeline.predict(latents, level, prompt, 1), level, 0)
        loss = F.mse_loss(reached, clean)
        self.log(f"loss_{level:.0f}", loss.detach())
        return loss


def train_student(config: DictConfig, out: Path) -> None:
    if (out / "turbo").exists():
        return
    pipeline = load()
    stage = TurboStage(config.student, config.seed, pipeline, teacher_pairs(config, pipeline, out / "pairs"))
    unet = fit(stage, out / "stage-student").unet
    adapters = {name: tensor.half().contiguous() for name, tensor in get_peft_model_state_dict(unet).items()}
    with atomic_folder(out / "turbo") as folder:
        StableDiffusionXLPipeline.save_lora_weights(folder, unet_lora_layers=adapters, weight_name=WEIGHTS)


@torch.no_grad()
def strict(pipeline: SDXLPipeline, config: DictConfig, steps: int, guidance: float) -> float:
    """Share of held-out captions that plain noise fulfils."""
    prompts, metric, scores = draw_prompts("test", config.count, 1), ShapesScore(strict=True), []
    for start in range(0, len(prompts), BATCH):
        texts = [prompt.text for prompt in prompts[start : start + BATCH]]
        noise = pipeline.draw_noise([prompt.seed for prompt in prompts[start : start + BATCH]])
        scores.append(metric.score(texts, pipeline.sample(pipeline.encode(texts), noise, steps, guidance)))
    return round(float(torch.cat(scores).mean()), 4)


def measure(config: DictConfig, out: Path) -> dict[str, Any]:
    """`strict` of the student, the bundled model and its guided form by steps, all from timestep 999."""
    base, student = load(), load({"source": str(out / "turbo"), "weight_name": WEIGHTS})
    guided = config.teacher.guidance
    rows = {"student": (student, 1.0), "bundled": (base, 1.0), "guided": (base, guided)}
    figures: dict[str, Any] = {"count": config.count, "teacher": strict(base, config, config.teacher.steps, guided)}
    for name, (pipeline, guidance) in rows.items():
        figures[name] = {str(steps): strict(pipeline, config, steps, guidance) for steps in (*COUNTS, 8)}
    return figures


def main(arguments: list[str]) -> None:
    config = read_arguments(__doc__, OmegaConf.load(Path(__file__).with_suffix(".yaml")), arguments)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, out / "config.yaml")
    torch.set_num_threads(config.num_threads)
    seed_everything(config.seed, verbose=False)
    train_student(config, out)
    figures = measure(config, out)
    print(json.dumps(figures, indent=2))
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
