"""Golden noise instead of guidance: quality against denoiser calls and seconds.

python -m experiments.guidance_free.run
"""

import json
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from experiments.study import (
    ALONE,
    OUTPUTS,
    PAIRS,
    SEEDS,
    SMOKE,
    Pairs,
    Scores,
    about,
    averaged,
    axes,
    each,
    evaluated,
    gain,
    identifier,
    interval,
    mean,
    miniature,
    once,
    save_figure,
    scores,
    spread,
    tabulate,
    trained,
)
from golden_noise.noise import draw_noise
from golden_noise.npnet import checkpoint
from golden_noise.shapes.metric import ShapesScore
from golden_noise.shapes.prompts import draw_prompts

SEARCH = "search=full_inversion"
INVERSIONS = Pairs("shapes-full_inversion", 4000, (SEARCH,))  # the default ones
MODELS = {
    "svd_unet+unet": ["model=svd_unet+unet"],
    "svd_unet+unet, unit variance": ["model=svd_unet+unet", "model.npnet.unit_variance=true"],
    "unet": ["model=unet"],
    "denoiser_lora": ["model=denoiser_lora"],
    "denoiser copy": ["model=denoiser_lora", "model.npnet.rank=null"],
}
BEST = "denoiser_lora"  # the one whose controls are drawn, and that is used with guidance
CONTROLS = ("shuffled", "random_shift", "rescaled")
FACTORS = (0.6, 0.9) if SMOKE else (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
GUIDANCES = (2.0,) if SMOKE else (1.5, 2.0)
STEPS, BATCH = 10, 50
COLOURS = {"k": "#444444", "g": "#c28a00", "b": "#3b6fb6", "r": "#b64b3b"}


def network(model: str, seed: int) -> Path:
    """An NPNet that learnt full inversions."""
    return trained(f"guidance_free/{identifier(model)}", INVERSIONS, seed, *MODELS[model])


def judged(seed: int) -> Path:
    """All networks of a seed without guidance, with the controls of the best one; the search with the first seed."""
    others = {identifier(model): network(model, seed) for model in MODELS if model != BEST}
    search = ["search"] if seed == SEEDS[0] else []
    methods = ",".join(["standard", *search, "npnet", *CONTROLS])
    options = [SEARCH, f"evaluation.methods=[{methods}]", f"npnet={network(BEST, seed)}"]
    return evaluated(f"guidance_free/networks-{seed}", *options, networks=others)


def predicted(model: str) -> list[Scores]:
    """The scores of a model's network of every seed."""
    return [scores(judged(seed), "npnet" if model == BEST else identifier(model)) for seed in SEEDS]


def guided(guidance: float) -> Path:
    """Plain noise, the best networks', and scaled noise, sampled with guidance."""
    networks = {f"best_{seed}": network(BEST, seed) for seed in SEEDS}
    options = [ALONE, f"pipeline.guidance={guidance}"]
    return evaluated(f"guidance_free/guided-{guidance}", *options, networks=networks, searches=scaled())


def plain_scaled() -> Path:
    """Scaled noise, without guidance."""
    return evaluated("guidance_free/rescale", ALONE, searches=scaled())


def scaled() -> dict[str, list[str]]:
    return {"rescale": ["rescale", f"factor={best_factor()}"]}


def with_guidance(guidance: float) -> list[Scores]:
    """The scores of the best model's network of every seed, used with guidance."""
    return [scores(guided(guidance), f"best_{seed}") for seed in SEEDS]


def golden_scaled(seed: int) -> Scores:
    """The scores of the best network's golden noise times the best factor, without guidance."""
    result = OUTPUTS / f"evaluate/guidance_free/scaled-{seed}/scores.json"

    def make() -> None:
        found = drawn_scaled(network(BEST, seed), best_factor())
        result.parent.mkdir(parents=True, exist_ok=True)
        result.write_text(json.dumps([[*key, score] for key, score in found.items()]))

    once(result, make)
    return {(prompt, noise): score for prompt, noise, score in json.loads(result.read_text())}


@torch.inference_mode()
def drawn_scaled(npnet: Path, factor: float) -> Scores:
    """Draws a network's golden noise times a constant, which is no method of an evaluation."""
    pipeline, score, found = miniature(), ShapesScore(strict=True), Scores()
    network = checkpoint.load(str(npnet), pipeline=pipeline)
    prompts = draw_prompts("test", PAIRS)
    for start in range(0, PAIRS, BATCH):
        batch = prompts[start : start + BATCH]
        texts = [prompt.text for prompt in batch]
        embedding = pipeline.encode(texts)
        noise = draw_noise([prompt.seed for prompt in batch], pipeline.latent_shape)
        images = pipeline.sample(embedding, factor * network.golden(noise, embedding))
        keys = [(prompt.text, str(prompt.seed)) for prompt in batch]
        found |= zip(keys, score.score(texts, images).tolist(), strict=True)
    return found


@cache
def best_factor() -> float:
    """The factor of the scalar baseline, chosen on prompts of the training split."""
    searches = {identifier(f"factor_{factor}"): ["rescale", f"factor={factor}"] for factor in FACTORS}
    split = ["prompts=shapes", "prompts.seed=77", f"prompts.count={PAIRS // 2}"]
    folder = evaluated("guidance_free/factors", ALONE, *split, searches=searches)
    quality = dict(zip(FACTORS, (mean(scores(folder, name)) for name in searches), strict=True))
    return max(quality, key=lambda factor: quality[factor])


@cache
@torch.inference_mode()
def seconds(npnet: Path | None, steps: int, guidance: float) -> float:
    """Seconds per image of sampling on this machine, with NPNet's pass: the best of three batches."""
    pipeline = miniature(steps, guidance)
    network = None if npnet is None else checkpoint.load(str(npnet), pipeline=pipeline)
    prompt = pipeline.encode(["a red circle"] * BATCH)
    noise = draw_noise(range(BATCH), pipeline.latent_shape)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        pipeline.sample(prompt, noise if network is None else network.golden(noise, prompt))
        times.append(time.perf_counter() - start)
    return min(times) / BATCH


class Table:
    """Rows of noise, sampler and quality, all paired with plain noise, and with scaled noise, in 10 unguided steps."""

    def __init__(self, plain: Scores, scaled: Scores):
        self.plain, self.scaled, self.rows = plain, scaled, list[dict[str, object]]()
        self.plot = axes("Quality against cost, miniature, 2,000 held-out pairs", "denoiser calls per image", "strict")
        self.marked = set[str]()

    def add(
        self,
        noise: str,
        found: Sequence[Scores],
        steps: int = STEPS,
        guidance: float = 1.0,
        npnet: Path | None = None,
        calls_before: int = 0,
        mark: str | None = None,
    ) -> None:
        """A row for a noise, pooled over trainings; a point in the figure for those with a mark."""
        calls = calls_before + steps * (1 if guidance == 1 else 2)
        pooled = found[0] if len(found) == 1 else averaged(found)
        self.rows.append(
            {
                "noise": noise,
                "steps": steps,
                "guidance": guidance,
                "denoiser calls": calls,
                "ms per image": f"{1000 * seconds(npnet, steps, guidance):.0f}",
                "strict": f"{mean(pooled):.3f}",
                "against plain": self.change(self.plain, pooled),
                f"against plain × {best_factor()}": self.change(self.scaled, pooled),
                "each training": each(map(mean, found)) if len(found) > 1 else "",
            }
        )
        if mark:
            label = None if noise in self.marked else noise
            self.marked.add(noise)
            spread(self.plot, calls, self.plain, pooled, label=label, color=COLOURS[mark[0]], fmt=mark[1])

    @staticmethod
    def change(baseline: Scores, found: Scores) -> str:
        return "–" if found is baseline else interval(gain(baseline, found))


def main() -> None:
    first = judged(SEEDS[0])
    table = Table(scores(first, "standard"), scores(plain_scaled(), "rescale"))
    add_plain(table)
    table.add("full inversion (the teacher)", [scores(first, "search")], calls_before=50)
    for model in MODELS:
        npnet, calls = network(model, SEEDS[0]), int("denoiser" in model)
        mark = {"svd_unet+unet": "bs", "denoiser copy": "rD", BEST: "go"}.get(model)
        table.add(model, predicted(model), npnet=npnet, calls_before=calls, mark=mark)
    smaller = [golden_scaled(seed) for seed in SEEDS]
    npnet = network(BEST, SEEDS[0])
    table.add(f"{BEST} × {best_factor()}", smaller, npnet=npnet, calls_before=1, mark="g^")
    for control in CONTROLS:
        found = [scores(judged(seed), control) for seed in SEEDS]
        table.add(f"control of {BEST}: {control}", found, npnet=npnet, calls_before=1)
    add_guided(table)
    tabulate(__file__, table.rows)
    tabulate(__file__, [learnt(model) for model in MODELS], "networks")
    table.plot.legend(frameon=False, loc="center")
    save_figure(__file__, table.plot)


def learnt(model: str) -> dict[str, object]:
    """What the trainings of a model reached, and what they cost."""
    runs = [about(network(model, seed)) for seed in SEEDS]
    return {
        "network": model,
        "parameters": runs[0]["parameters"],
        "explained": each(run["explained"] for run in runs),
        "minutes of training": each((run["seconds"] / 60 for run in runs), ".1f"),
    }


def add_plain(table: Table) -> None:
    """Plain noise as it is, at other numbers of steps, and scaled by the best factor."""
    table.add("plain", [table.plain], mark="kx")
    for steps in (11, 20):
        folder = evaluated(f"guidance_free/plain-{steps}", ALONE, f"pipeline.steps={steps}")
        table.add("plain", [scores(folder, "standard")], steps=steps, mark="kx")
    table.add(f"plain × {best_factor()}", [table.scaled], mark="k^")


def add_guided(table: Table) -> None:
    """Guided sampling of plain and golden noise, and guided sampling in as few calls as golden noise takes without."""
    npnet = network(BEST, SEEDS[0])
    for guidance in GUIDANCES:
        folder = guided(guidance)
        table.add("plain, guided", [scores(folder, "standard")], guidance=guidance, mark="k+")
        found = with_guidance(guidance)
        table.add(f"{BEST}, guided", found, guidance=guidance, npnet=npnet, calls_before=1, mark="g*")
        smaller = [scores(folder, "rescale")]
        table.add(f"plain × {best_factor()}, guided", smaller, guidance=guidance, mark="kv")
    for steps in (5, 6):
        folder = evaluated(f"guidance_free/guided-2-{steps}", ALONE, "pipeline.guidance=2", f"pipeline.steps={steps}")
        table.add("plain, guided", [scores(folder, "standard")], steps=steps, guidance=2.0, mark="k+")


if __name__ == "__main__":
    main()
