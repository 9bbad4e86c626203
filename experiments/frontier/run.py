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
    scores,
    tabulate,
    trained,
)

STEPS = "pipeline.steps=4"
COUNTS = (1, 2, 4, 8)
CAPTIONS = 8 if SMOKE else 200  # of every task as many
SEARCHED = 32 if SMOKE else 600
GUIDANCE = "2.0"
FACTOR = "0.7"  # the best for plain noise in 4 steps: evaluation.constant of `python evaluate.py experiment=shapes`
PAIRS = Pairs("frontier", 4000, (STEPS,))
LEVEL = ("search=chain", "search.searches.smaller.factor=0.65")  # noise-level guidance, then smaller noise
LEVEL_PAIRS = Pairs("frontier_chain", 4000, (STEPS, *LEVEL))
PROMPTS = Pairs("unused", 4000)  # of objectives that read prompts alone
REWARD = ("objective=reward", "objective.beta=0", "recipe.denoiser_lr=3e-4")
PREVIEW = 2  # steps before the reward looks
SCALED, CHOSEN = (3, 6), (2, 4, 12)  # noises to choose among by previews: 10 and 16 calls; 10, 16 and 40
SEARCHES = {
    "reno": ("reno", "1"),
    "golden_reno": ("golden, then reno", "1"),
    "rewarded_reno": ("trained on by the reward, then reno", "1"),
    "nlg": ("noise-level guidance", "1"),
    "chain": ("the same × 0.65", "1"),
    **{f"scaled_{n}": (f"plain × {FACTOR}, previews", str(n)) for n in SCALED},
    **{f"rewarded_{n}": ("trained on by the reward, previews", str(n)) for n in CHOSEN},
}
COLOURS = (
    "#444444",
    "#3b6fb6",
    "#7a4fa3",
    "#c28a00",
    "#2b8a57",
    "#b0413e",
    "#8a6d3b",
    "#111111",
    "#d1579b",
    "#5aa7c7",
    "#888888",
    "#006d77",
    "#b58db6",
)


def golden(seed: int) -> Path:
    """The demo's network."""
    return trained("frontier/golden", PAIRS, seed, STEPS)


def taught(seed: int) -> Path:
    """A network that learnt noise-level guidance."""
    return trained("frontier/taught_chain", LEVEL_PAIRS, seed, STEPS, "recipe.epochs=10")


def rewarded(seed: int) -> Path:
    """That network, trained on by a reward."""
    return trained("frontier/rewarded", PROMPTS, seed, STEPS, f"npnet={taught(seed)}", *REWARD, "recipe.epochs=5")


def drawn() -> list[Path]:
    """Several noises of every caption, from plain noise, a constant, guidance and each training's networks."""
    searches: Mapping[str, Sequence[str]] = {"scaled": ["rescale", f"factor={FACTOR}"]}
    return [
        evaluated(
            f"frontier/drawn/{seed}",
            STEPS,
            f"prompts.count={CAPTIONS * max(COUNTS)}",
            f"prompts.repeats={max(COUNTS)}",  # else captions of few noises would be left out of the best of many
            f"npnet={golden(seed)}",
            f"evaluation.guided.guidance={GUIDANCE}",
            f"evaluation.methods=[standard,npnet{',guided' if seed == SEEDS[0] else ''}]",
            networks={"taught": taught(seed), "rewarded": rewarded(seed)},
            searches=searches if seed == SEEDS[0] else None,
        )
        for seed in SEEDS
    ]


def searched() -> Path:
    """What optimising each noise gains, or choosing by previews, from plain noise and from golden noise."""
    few, first = ["iterations=5", "lr=1"], SEEDS[0]
    searches = {
        "reno": ["reno", *few],
        "golden_reno": ["reno", *few],
        "rewarded_reno": ["reno", *few],
        "nlg": ["noise_level_guidance"],
        "chain": ["chain", "searches.smaller.factor=0.65"],
        **{f"scaled_{n}": ["best_of_n", f"n={n}", f"preview_steps={PREVIEW}"] for n in SCALED},
        **{f"rewarded_{n}": ["best_of_n", f"n={n}", f"preview_steps={PREVIEW}"] for n in CHOSEN},
    }
    starts = {"golden_reno": golden(first), "rewarded_reno": rewarded(first)}
    starts |= {f"rewarded_{n}": rewarded(first) for n in CHOSEN}
    begun = [option for name, network in starts.items() for option in start(name, "predicted", f"npnet={network}")]
    begun += [option for n in SCALED for option in start(f"scaled_{n}", "rescale", f"factor={FACTOR}")]
    return evaluated("frontier/searched", ALONE, STEPS, f"prompts.count={SEARCHED}", *begun, searches=searches)


def start(search: str, kind: str, setting: str) -> list[str]:
    """Has a search start from another one."""
    place = f"evaluation.searches.{search}.start"
    return [f"+search@{place}={kind}", f"{place}.{setting}"]


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
        "golden, of noise-level guidance": [(folder, "taught") for folder in folders],
        "the same, trained on by the reward": [(folder, "rewarded") for folder in folders],
    }
    rows, found = [], {}
    for count in COUNTS:
        plain = chosen(first, "standard", count)
        for noise, sources in arms.items():
            values = averaged(chosen(folder, method, count) for folder, method in sources)
            cost = count * calls(*sources[0])
            found[noise, cost] = mean(values)
            rows.append(row(noise, str(count), cost, plain, values))
    folder = searched()
    plain = chosen(folder, "standard", 1)
    for method, (noise, best_of) in SEARCHES.items():
        values = chosen(folder, method, 1)
        found[noise, calls(folder, method)] = mean(values)
        rows.append(row(noise, best_of, calls(folder, method), plain, values))
    draw(found)
    tabulate(__file__, rows)
    tabulate(__file__, compared(folders), "compared")


def compared(folders: Sequence[Path]) -> list[dict[str, object]]:
    """What the networks gain on each other and on rivals, with as many images to choose from; also in 10 steps."""
    first, ten = folders[:1], in_ten_steps()
    pairs = [
        ("the demo's", "npnet", folders, "noise-level guidance", "taught", folders, COUNTS),
        (f"plain × {FACTOR}", "scaled", first, "noise-level guidance", "taught", folders, (1,)),
        (f"plain, guidance {GUIDANCE}", "guided", first, "noise-level guidance", "taught", folders, (1,)),
        ("noise-level guidance", "taught", folders, "then the reward", "rewarded", folders, COUNTS),
        ("10 steps: plain × 0.6", "scaled", ten, "then the reward, in 4", "four", ten, (1,)),
        ("10 steps: plain × 0.6", "scaled", ten, "the same, then in 10", "ten", ten, (1,)),
    ]
    rows = []
    for against, base, theirs, noise, method, ours, counts in pairs:
        sides = [(folders, name) for folders, name in ((theirs, base), (ours, method))]
        rewards = [mean(averaged(scores(f, name, "reward") for f in folders)) for folders, name in sides]
        for count in counts:
            plain, found = (averaged(chosen(f, name, count) for f in folders) for folders, name in sides)
            rows.append(
                {
                    "against": against,
                    "noise": noise,
                    "best of": count,
                    "strict": f"{mean(plain):.3f} → {mean(found):.3f}",
                    "gain": interval(gain(plain, found)),
                    "reward of one": "{:.2f} → {:.2f}".format(*rewards),
                }
            )
    return rows


def in_ten_steps() -> list[Path]:
    """The network that the reward trained in 4 steps, used in 10, and trained on in 10; one training."""
    four = rewarded(SEEDS[0])
    start = ["pipeline.steps=10", f"npnet={four}", *REWARD, "recipe.epochs=3"]
    networks = {"four": four, "ten": trained("frontier/ten", PROMPTS, SEEDS[0], *start)}
    return [evaluated("frontier/ten", ALONE, networks=networks, searches={"scaled": ["rescale", "factor=0.6"]})]


def row(noise: str, best_of: str, cost: float, plain: Scores, values: Scores) -> dict[str, object]:
    change = "–" if noise == "plain" else interval(gain(plain, values))
    return {
        "noise": noise,
        "best of": best_of,
        "denoiser calls": f"{cost:g}",
        "strict": f"{mean(values):.3f}",
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
    plot.figure.set_size_inches(10, 4.6)
    plot.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    save_figure(__file__, plot)


if __name__ == "__main__":
    main()
