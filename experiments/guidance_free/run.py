"""Golden noise instead of guidance: quality against denoiser calls and seconds.

python -m experiments.guidance_free.run
"""

import time
from functools import cache
from pathlib import Path

import torch

from experiments.study import (
    PAIRS,
    SEEDS,
    SMOKE,
    Pairs,
    Scores,
    evaluated,
    gain,
    interval,
    mean,
    scores,
    tabulate,
    trained,
)
from golden_noise.noise import draw_noise
from golden_noise.npnet import checkpoint
from golden_noise.pipelines.sdxl import SDXLPipeline

SEARCH = "search=full_inversion"
MODELS = {
    "svd_unet+unet": ["model=svd_unet+unet"],
    "svd_unet+unet, unit variance": ["model=svd_unet+unet", "model.npnet.unit_variance=true"],
    "unet": ["model=unet"],
    "denoiser_lora": ["model=denoiser_lora"],
    "denoiser copy": ["model=denoiser_lora", "model.npnet.rank=null"],
}
BEST = "denoiser copy"  # the one whose controls are drawn
FACTORS = (0.6, 0.9) if SMOKE else (0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
GUIDANCES = (2.0,) if SMOKE else (1.5, 2.0, 2.5, 3.5, 5.5)
ALONE, PREDICTED, FOUND = (f"evaluation.methods=[standard{more}]" for more in ("", ",npnet", ",search"))
STEPS, BATCH = 10, 50


def identifier(model: str) -> str:
    return model.replace("+", "_").replace(", ", "_").replace(" ", "_")


def best_factor() -> float:
    """The factor of the scalar baseline, chosen on prompts of the training split."""
    split = ["prompts=shapes", "prompts.seed=77", f"prompts.count={PAIRS}"]
    quality = {}
    for factor in FACTORS:
        options = [FOUND, "search=rescale", f"search.factor={factor}", *split]
        quality[factor] = mean(scores(evaluated(f"guidance_free/factor-{factor}", *options), "search"))
    return max(quality, key=lambda factor: quality[factor])


@cache
@torch.inference_mode()
def seconds(npnet: Path | None, steps: int, guidance: float) -> float:
    """Seconds per image of sampling on this machine, with NPNet's pass: the best of three batches."""
    pipeline = SDXLPipeline.load(
        "package:shapes/weights/pipeline", device="cpu", height=32, width=32, steps=steps, guidance=guidance
    )
    network = None if npnet is None else checkpoint.load(str(npnet), load_pipeline=lambda: pipeline)
    prompt = pipeline.encode(["a red circle"] * BATCH)
    noise = draw_noise(range(BATCH), pipeline.latent_shape)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        pipeline.sample(prompt, noise if network is None else network.golden(noise, prompt))
        times.append(time.perf_counter() - start)
    return min(times) / BATCH


class Table:
    """Rows of noise, sampler and quality, all paired with plain noise in 10 steps without guidance."""

    def __init__(self, plain: Scores):
        self.plain, self.rows = plain, list[dict[str, object]]()

    def add(
        self,
        noise: str,
        found: Scores,
        seed: int | None = None,
        steps: int = STEPS,
        guidance: float = 1.0,
        npnet: Path | None = None,
        calls_before: int = 0,
    ) -> None:
        calls = calls_before + steps * (1 if guidance == 1 else 2)
        self.rows.append(
            {
                "noise": noise,
                "seed": seed or "–",
                "steps": steps,
                "guidance": guidance,
                "denoiser calls": calls,
                "ms per image": f"{1000 * seconds(npnet, steps, guidance):.0f}",
                "strict": f"{mean(found):.3f}",
                "change": "–" if found is self.plain else interval(gain(self.plain, found)),
            }
        )


def main() -> None:
    pairs = Pairs("full_inversion", 16_000, (SEARCH,))
    networks = {
        seed: {model: trained(f"guidance_free/{identifier(model)}", pairs, seed, *o) for model, o in MODELS.items()}
        for seed in SEEDS
    }
    judged = {seed: judge(seed, networks[seed]) for seed in SEEDS}
    first = judged[SEEDS[0]]
    table = Table(scores(first, "standard"))
    add_plain(table)
    table.add("full inversion (the teacher)", scores(first, "search"), calls_before=50)
    for seed, folder in judged.items():
        for model, npnet in networks[seed].items():
            found = scores(folder, "npnet" if model == BEST else identifier(model))
            table.add(model, found, seed, npnet=npnet, calls_before=int("denoiser" in model))
        for control in ("shuffled", "random_shift", "rescaled"):
            table.add(f"control of {BEST}: {control}", scores(folder, control), seed, calls_before=1)
    add_guided(table, networks[SEEDS[0]][BEST])
    tabulate(__file__, table.rows)


def judge(seed: int, networks: dict[str, Path]) -> Path:
    """Every network of a seed without guidance, with the search and the controls of the best network."""
    others = {identifier(model): path for model, path in networks.items() if model != BEST}
    return evaluated(f"guidance_free/networks-{seed}", SEARCH, f"npnet={networks[BEST]}", networks=others)


def add_plain(table: Table) -> None:
    """Plain noise as it is, at other numbers of steps, and scaled by the best factor."""
    table.add("plain", table.plain)
    for steps in (11, 20):
        folder = evaluated(f"guidance_free/plain-{steps}", ALONE, f"pipeline.steps={steps}")
        table.add("plain", scores(folder, "standard"), steps=steps)
    factor = best_factor()
    folder = evaluated("guidance_free/rescale", FOUND, "search=rescale", f"search.factor={factor}")
    table.add(f"plain × {factor}", scores(folder, "search"))


def add_guided(table: Table, npnet: Path) -> None:
    """Guided sampling of plain and golden noise, and guided sampling in as few calls as golden noise takes without."""
    for guidance in GUIDANCES:
        options = [PREDICTED, f"pipeline.guidance={guidance}", f"npnet={npnet}"]
        folder = evaluated(f"guidance_free/guided-{guidance}", *options)
        table.add("plain", scores(folder, "standard"), guidance=guidance)
        table.add(BEST, scores(folder, "npnet"), SEEDS[0], guidance=guidance, npnet=npnet, calls_before=1)
    for steps in (5, 6):
        options = [ALONE, "pipeline.guidance=2", f"pipeline.steps={steps}"]
        table.add(
            "plain", scores(evaluated(f"guidance_free/guided-2-{steps}", *options), "standard"), steps=steps, guidance=2
        )


if __name__ == "__main__":
    main()
