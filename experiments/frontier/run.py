"""Quality against denoiser calls in 4 steps: golden noise, and everything else that the same calls can buy.

python -m experiments.frontier.run

Draws several noises of every caption once. The reward then chooses the best of 1, 2, 4 and 8 of them, as it would among
drawn images, and the exact detector judges the choice. A backward pass counts as two calls.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.best_of_n.run import chosen
from experiments.study import (
    ALONE,
    SEEDS,
    SMOKE,
    Pairs,
    Scores,
    averaged,
    axes,
    evaluated,
    gain,
    interval,
    mean,
    save_figure,
    tabulate,
    trained,
)

STEPS = "pipeline.steps=4"
COUNTS = (1, 2, 4, 8)
NOISES = 64 if SMOKE else 2400  # eight for each of 300 choices
SEARCHED = 32 if SMOKE else 600
GUIDANCE = "2.0"
FACTOR = "0.7"  # the best for plain noise in 4 steps: evaluation.constant of `python evaluate.py experiment=shapes`
PAIRS = Pairs("frontier", 4000, (STEPS,))
COLOURS = ("#444444", "#3b6fb6", "#7a4fa3", "#c28a00", "#2b8a57", "#b0413e", "#8a6d3b", "#111111")


def golden(seed: int) -> Path:
    """The demo's network."""
    return trained("frontier/golden", PAIRS, seed, STEPS)


def drawn() -> list[Path]:
    """Several noises of every caption, from plain noise, a constant, guidance and each training's network."""
    searches: Mapping[str, Sequence[str]] = {"scaled": ["rescale", f"factor={FACTOR}"]}
    first, *others = SEEDS
    guided = [f"evaluation.guided.guidance={GUIDANCE}", "evaluation.methods=[standard,npnet,guided]"]
    count = [f"prompts.count={NOISES}", STEPS]
    folders = [evaluated("frontier/1", *guided, f"npnet={golden(first)}", *count, searches=searches)]
    with_network = "evaluation.methods=[standard,npnet]"
    return folders + [evaluated(f"frontier/{seed}", with_network, f"npnet={golden(seed)}", *count) for seed in others]


def searched() -> Path:
    """What optimising each noise gains, from plain noise and from golden noise."""
    few = ["iterations=5", "lr=1"]
    start = golden(SEEDS[0])
    searches = {
        "reno": ["reno", *few],
        "golden_reno": ["reno", *few],
        "nlg": ["noise_level_guidance"],
        "chain": ["chain"],
    }
    begun = [
        "+search@evaluation.searches.golden_reno.start=predicted",
        f"evaluation.searches.golden_reno.start.npnet={start}",
    ]
    return evaluated("frontier/searched", ALONE, STEPS, f"prompts.count={SEARCHED}", *begun, searches=searches)


def calls(folder: Path, method: str) -> float:
    """Denoiser calls per image, as the evaluation counted them."""
    return json.loads((folder / "results.json").read_text())["calls"][method]


def main() -> None:
    folders = drawn()
    first = folders[0]
    arms = {
        "plain": [(first, "standard")],
        f"plain × {FACTOR}": [(first, "scaled")],
        f"plain, guidance {GUIDANCE}": [(first, "guided")],
        "golden": [(folder, "npnet") for folder in folders],
    }
    rows, found = [], {}
    for count in COUNTS:
        plain = chosen(first, "standard", count)
        for noise, sources in arms.items():
            scores = averaged(chosen(folder, method, count) for folder, method in sources)
            cost = count * calls(*sources[0])
            found[noise, cost] = mean(scores)
            rows.append(row(noise, count, cost, plain, scores))
    folder = searched()
    plain = chosen(folder, "standard", 1)
    names = {
        "reno": "reno",
        "golden_reno": "golden, then reno",
        "nlg": "noise-level guidance",
        "chain": "the same × 0.75",
    }
    for method, noise in names.items():
        scores = chosen(folder, method, 1)
        found[noise, calls(folder, method)] = mean(scores)
        rows.append(row(noise, 1, calls(folder, method), plain, scores))
    draw(found)
    tabulate(__file__, rows)


def row(noise: str, count: int, cost: float, plain: Scores, scores: Scores) -> dict[str, object]:
    change = "–" if noise == "plain" else interval(gain(plain, scores))
    return {
        "noise": noise,
        "best of": count,
        "denoiser calls": f"{cost:g}",
        "strict": f"{mean(scores):.3f}",
        "against plain, as many": change,
    }


def draw(found: Mapping[tuple[str, float], float]) -> None:
    """strict against calls, a line for each noise."""
    plot = axes("The miniature in 4 steps: what denoiser calls can buy", "denoiser calls per image", "strict")
    plot.set_xscale("log", base=2)
    lines: dict[str, list[tuple[float, float]]] = {}
    for (noise, cost), value in found.items():
        lines.setdefault(noise, []).append((cost, value))
    for (noise, points), colour in zip(lines.items(), COLOURS, strict=True):
        plot.plot(*zip(*sorted(points), strict=True), marker="o", label=noise, color=colour)
    ticks = [4, 8, 16, 32, 64]
    plot.set_xticks(ticks, map(str, ticks))
    plot.legend(frameon=False, loc="lower right")
    save_figure(__file__, plot)


if __name__ == "__main__":
    main()
