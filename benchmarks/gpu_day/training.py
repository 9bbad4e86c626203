"""(d) A training step at 4 x 128 x 128 and batch 64: the published code's, ours in its forms, and the reader's share.

A step is all that Lightning does for a batch: copy to the device, cast, loss, backward pass, clipping, AdamW.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.forward import backend
from benchmarks.gpu_day.results import Row
from benchmarks.models import build_npnet, build_published, sdxl, shapes
from benchmarks.published import PublishedStep
from benchmarks.streaming import write_shards
from golden_noise.npnet import NPNet
from golden_noise.pairs import NoisePairDataModule
from golden_noise.training.module import NPNetModule

Batch = dict[str, Any]


class Step:
    """A step of ours on a batch as the reader gives it.

    Args:
        half: in bfloat16 where autocast allows it (trainer.precision=bf16-mixed).
        channels_last: as torch lays out weights and maps for its fastest convolutions.
        compiled: the network without the decomposition.
        beforehand: the decomposition of the noise on the CPU, which the reader might give; None: made in the step.
    """

    def __init__(
        self,
        day: Day,
        half: bool = False,
        channels_last: bool = False,
        compiled: bool = False,
        beforehand: tuple[Tensor, ...] | None = None,
    ):
        self.device, self.half, self.beforehand = day.device, half, beforehand
        self.npnet: NPNet = build_npnet(day.tiny).to(day.device)
        if channels_last:
            self.npnet.to(memory_format=torch.channels_last)
        self.network: Any = self.npnet
        if compiled:
            torch._dynamo.reset()
            self.network = torch.compile(self.npnet, dynamic=False, backend=backend(day))
        self.optimizer = NPNetModule(self.npnet, partial(torch.optim.AdamW, lr=1e-4)).configure_optimizers()

    def __call__(self, batch: Batch) -> Tensor:
        noise, golden, embeds = (
            batch[name].to(self.device, non_blocking=True).float() for name in ("noise", "golden", "embeds")
        )
        if self.beforehand is None:
            svd = self.npnet.svd_branch.decompose(noise)  # type: ignore[union-attr]
        else:
            svd = tuple(part.to(self.device, non_blocking=True) for part in self.beforehand)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            loss = F.mse_loss(self.network(noise, embeds, svd=svd), golden)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.npnet.parameters(), 1.0)
        self.optimizer.step()
        return loss.detach()


def run(day: Day) -> None:
    batch, count = (4, 40) if day.tiny else (64, 1024)
    folder = day.scratch / "pairs"
    latent, embeds = shapes(day.tiny)
    if not (folder / "index.json").exists():
        write_shards(folder, count, embeds=embeds, latents=latent)
    with reading(folder, day, batch, workers=0) as data:  # which need shared memory
        pairs = next(iter(data.train_dataloader()))
    published = published_step(day, pairs)
    decomposed = decomposition(day, pairs["noise"])
    forms: dict[str, dict[str, Any]] = {
        "float32": {},
        "float32 with TF32": {},
        "bf16-mixed": {"half": True},
        "bf16-mixed, channels-last": {"half": True, "channels_last": True},
        "float32, decomposed beforehand": {"beforehand": decomposed},
        "bf16-mixed, decomposed beforehand": {"half": True, "beforehand": decomposed},
    }
    rates = {name: ours(day, name, pairs, published, **form) for name, form in forms.items()}
    keeps_up(day, folder, batch, rates)
    compiled: dict[str, dict[str, Any]] = {  # last, since compiling takes the longest
        "bf16-mixed, compiled": {"half": True, "compiled": True},
        "bf16-mixed, compiled, decomposed beforehand": {"half": True, "compiled": True, "beforehand": decomposed},
    }
    rates |= {name: ours(day, name, pairs, published, **form) for name, form in compiled.items()}
    judge(day, rates, published, batch)


@contextmanager
def reading(folder: Path, day: Day, batch: int, workers: int) -> Iterator[NoisePairDataModule]:
    latent, embeds = shapes(day.tiny)
    data = NoisePairDataModule(folder, latent, embeds, batch_size=batch, num_workers=workers, val_fraction=0.1)
    data.setup("fit")
    try:
        yield data
    finally:
        data.teardown("fit")


def published_step(day: Day, pairs: Batch) -> float | None:
    """Seconds of the published step, with SDXL's own text encoders."""
    pipeline = sdxl(day.device, day.tiny)
    step = PublishedStep(build_published(day.tiny).to(day.device), lambda prompt: pipeline.encode([prompt]).embeds)
    arguments = pairs["noise"], pairs["golden"], pairs["prompt"]
    count = len(pairs["prompt"])
    note = f"{count} pairs a step, float32, SVD on the GPU, one prompt encoded"
    return day.measure("published step", lambda: step(*arguments), (count, "pairs"), repeats=3, note=note)


def decomposition(day: Day, noise: Tensor) -> tuple[Tensor, ...]:
    """What the reader would give beside the noise, in memory from which a GPU copies fast."""
    branch: Any = build_npnet(day.tiny).svd_branch
    parts = (part.cpu() for part in branch.decompose(noise.to(day.device).float()))
    return tuple(part.pin_memory() if day.is_cuda else part for part in parts)


def ours(day: Day, name: str, pairs: Batch, published: float | None, **form: Any) -> float | None:
    """Pairs per second of a form of our step."""
    rates: list[float] = []

    def figure() -> Row:
        torch.set_float32_matmul_precision("high" if "TF32" in name else "highest")
        step = Step(day, **form)
        start = day.once(lambda: step(pairs))
        seconds = day.seconds(lambda: step(pairs), repeats=5, warm=2)
        rates.append(len(pairs["prompt"]) / seconds)
        notes = [f"{published / seconds:.1f} x the published step"] if published else []
        if form.get("compiled"):
            notes.append(f"{start:.0f} s to compile")
        return Row(f"our step, {name}", rates[0], "pairs/s", note="; ".join(notes))

    try:
        day.attempt(f"our step, {name}", figure)
    finally:
        torch.set_float32_matmul_precision("highest")
    return rates[0] if rates else None


def judge(day: Day, rates: dict[str, float | None], published: float | None, batch: int) -> None:
    known = {name: rate for name, rate in rates.items() if rate}
    if not known or not published:
        return
    kinds = {
        "as the reader is": {name: rate for name, rate in known.items() if "beforehand" not in name},
        "any form": known,
    }
    for kind, those in kinds.items():
        if those:
            fastest = max(those, key=lambda name: those[name])
            ratio = those[fastest] / (batch / published)
            day.goal(f"our fastest step, {kind}", ratio, "x the published", "≥ 10 x", ratio >= 10, fastest)


def keeps_up(day: Day, folder: Path, batch: int, rates: dict[str, float | None]) -> None:
    """What the reader gives alone, and what of a step's speed is left when the reader feeds it."""
    known = {name: rate for name, rate in rates.items() if rate and "beforehand" not in name and "TF32" not in name}
    fastest = max(known, key=lambda name: known[name], default=None)
    form: dict[str, Any] = {"half": "bf16" in (fastest or ""), "channels_last": "channels-last" in (fastest or "")}
    for workers in (2, 4):
        with reading(folder, day, batch, workers) as data:
            what = f"reader alone, data.num_workers={workers}"
            day.attempt(what, partial(alone, what, data))
            if fastest:
                what = f"our step fed by the reader, data.num_workers={workers}"
                day.attempt(what, partial(fed, day, what, data, Step(day, **form), known[fastest]))


def alone(what: str, data: NoisePairDataModule) -> Row:
    return Row(what, epoch_rate(data, lambda pairs: None), "pairs/s")


def fed(day: Day, what: str, data: NoisePairDataModule, step: Step, resident: float) -> Row:
    rate = epoch_rate(data, lambda pairs: step(pairs).item())  # waits for the step, as its log does
    share = 100 * rate / resident
    met = None if day.tiny else share >= 95
    return Row(what, rate, "pairs/s", goal="≥ 95 % of the step alone", met=met, note=f"{share:.0f} %")


def epoch_rate(data: NoisePairDataModule, use: Callable[[Batch], object]) -> float:
    """Pairs per second of the second epoch: in the first, every worker starts and looks at its shards."""
    loader = data.train_dataloader()
    with closing(loader):
        for _ in range(2):
            count, start = 0, 0.0
            for batch in loader:
                if start:  # the first batch only starts the clock
                    count += len(batch["prompt"])
                use(batch)
                start = start or time.perf_counter()
            seconds = time.perf_counter() - start
    return count / seconds
