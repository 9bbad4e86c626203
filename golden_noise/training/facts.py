"""The record of a finished training, for tables that compare runs."""

import time
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from lightning import Trainer
from lightning.pytorch.callbacks import Timer
from omegaconf import DictConfig, OmegaConf

from golden_noise.npnet import AnyNPNet
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.tracking import record
from golden_noise.tracking.record import without_name

REPEATS = 10


def run_facts(config: DictConfig, trainer: Trainer, npnet: AnyNPNet) -> dict[str, Any]:
    """The content of `run.json`.

    - `best`: of `monitor`, the figure that decides the best checkpoint; `explained`: the same if it is val/explained.
    - `epochs`, `steps`: of the training.
    - `parameters`: trained ones.
    - `seconds`: of training, validation included, summed over restarts.
    - `forward_ms`: of one forward pass of `forward_batch` noises, see `forward_ms`.
    """
    monitor = getattr(trainer.checkpoint_callback, "monitor", None)
    score = getattr(trainer.checkpoint_callback, "best_model_score", None)
    best = None if score is None else float(score)
    timer = next((callback for callback in trainer.callbacks if isinstance(callback, Timer)), None)  # type: ignore[attr-defined]
    options: Any = OmegaConf.to_container(config.data, resolve=True)
    batch, shapes = options["batch_size"], (options["embeds_shape"], options["pooled_shape"])
    return {
        "overrides": without_name(HydraConfig.get().overrides.task) if HydraConfig.initialized() else [],
        "commit": record.commit(),
        "monitor": monitor,
        "best": best,
        "explained": best if monitor == "val/explained" else None,
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "parameters": sum(parameter.numel() for parameter in npnet.parameters() if parameter.requires_grad),
        "seconds": None if timer is None else round(timer.time_elapsed(), 1),
        "forward_ms": round(forward_ms(npnet, batch, config.pipeline.latent_shape, *shapes), 3),
        "forward_batch": batch,
        "device": str(npnet.device),
        "threads": torch.get_num_threads(),
        "ranks": trainer.world_size,
    }


@torch.inference_mode()
def forward_ms(npnet: Any, batch: int, latent_shape: Any, embeds_shape: Any, pooled_shape: Any = None) -> float:
    """Milliseconds of one forward pass of a batch of noises: the best of 10, least disturbed by other work."""
    generator = torch.Generator().manual_seed(0)
    noise, embeds = (torch.randn(batch, *shape, generator=generator) for shape in (latent_shape, embeds_shape))
    pooled = None if pooled_shape is None else torch.randn(batch, *pooled_shape, generator=generator)
    device = npnet.device
    noise, prompt = noise.to(device), PromptEmbedding(embeds, pooled=pooled).to(device, torch.float32)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        npnet.golden(noise, prompt)
        if device.type != "cpu":
            torch.accelerator.synchronize()
        times.append(time.perf_counter() - start)
    return 1000 * min(times)
