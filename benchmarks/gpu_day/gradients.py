"""(f) Training steps that pass through SDXL's denoiser: time and memory, with and without checkpointing."""

from functools import partial
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.gpu_day.day import Day
from benchmarks.models import build_npnet, few_steps, pickscore, sdxl
from golden_noise.cli.config import job_config
from golden_noise.npnet import AnyNPNet, DenoiserNPNet
from golden_noise.objectives.reward import Reward
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.training.module import NPNetModule

ADAMW = partial(torch.optim.AdamW, lr=1e-4)


def run(day: Day) -> None:
    pipeline = sdxl(day.device, day.tiny, torch.bfloat16)
    adapters(day, pipeline)
    day.release()
    rewards(day, few_steps(pipeline))


def encoded(pipeline: SDXLPipeline, batch: int) -> PromptEmbedding:
    return pipeline.encode([f"a photo of object {i}" for i in range(batch)])


def optimize(module: NPNetModule, optimizer: Any, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in module.parameters() if p.requires_grad], 1.0)
    optimizer.step()


def adapters(day: Day, pipeline: SDXLPipeline) -> None:
    """model=denoiser_lora on pairs, as conf/model sets it up."""
    layers = list(job_config("train", ["model=denoiser_lora"]).model.npnet.target_modules)
    npnet = DenoiserNPNet(pipeline, 4 if day.tiny else 64, layers).train()
    for checkpointing in (True, False):
        toggle = "enable" if checkpointing else "disable"
        getattr(npnet.denoiser, f"{toggle}_gradient_checkpointing")()
        for batch in (1, 2) if day.tiny else (1, 4, 8):
            what = f"denoiser_lora, batch {batch}, gradient_checkpointing={str(checkpointing).lower()}"
            step = adapter_step(npnet, pipeline, batch, day.device)
            day.measure(what, step, (batch, "pairs"), repeats=3)


def adapter_step(npnet: DenoiserNPNet, pipeline: SDXLPipeline, batch: int, device: torch.device) -> Any:
    module = NPNetModule(npnet, ADAMW)
    optimizer, prompt = module.configure_optimizers(), encoded(pipeline, batch)
    noise = torch.randn(batch, *pipeline.latent_shape, device=device)
    golden = noise + 0.1 * noise.roll(1, -1)

    def step() -> None:
        optimize(module, optimizer, F.mse_loss(npnet.golden(noise, prompt), golden))

    return step


def rewards(day: Day, pipeline: SDXLPipeline) -> None:
    """objective=reward with PickScore, gradients through all four steps or the last one, the VAE and CLIP ViT-H."""
    metric = pickscore(day.scratch / "pickscore", day.device, day.tiny, "float32" if day.tiny else "bfloat16")
    npnet = build_npnet(day.tiny).to(day.device).train()
    cases: list[tuple[int, dict[str, Any]]] = [
        (1, {"checkpointing": True}),
        (4, {"checkpointing": True}),
        (1, {"checkpointing": True, "jacobian_steps": 1}),
        (1, {"jacobian_steps": 1}),
        (1, {}),
    ]
    for batch, options in cases:
        named = ", ".join(f"{name}={value}" for name, value in ({"checkpointing": False} | options).items()).lower()
        step = reward_step(npnet, pipeline, Reward(metric, **options), batch, day.device)
        day.measure(f"objective=reward, 4 steps, batch {batch}, {named}", step, (batch, "images"), repeats=2)


def reward_step(npnet: AnyNPNet, pipeline: SDXLPipeline, objective: Reward, batch: int, device: torch.device) -> Any:
    module = NPNetModule(npnet, ADAMW)
    optimizer, prompt = module.configure_optimizers(), encoded(pipeline, batch)
    noise = torch.randn(batch, *pipeline.latent_shape, device=device)

    def step() -> None:
        pairs: dict[str, Any] = {"noise": noise}
        optimize(module, optimizer, objective(npnet, pairs, prompt, pipeline).loss)  # type: ignore[arg-type]

    return step
