"""Golden noise against choosing the best of several images, at equal cost and together.

python -m experiments.best_of_n.run

Draws nothing of its own: the images of experiments/guidance_free, several noises of every caption, are grouped by N,
and the reward chooses one of each group, as it would among N drawn images. The exact detector judges the choice.
"""

from collections.abc import Iterable
from pathlib import Path

from experiments.guidance_free.run import BEST, STEPS, best_factor, guided, judged, plain_scaled
from experiments.study import SEEDS, Scores, averaged, axes, gain, interval, mean, save_figure, scores, tabulate

COUNTS = (1, 2, 4)


def chosen(evaluation: Path, method: str, count: int) -> Scores:
    """Strict of the image with the highest reward among `count` noises of a caption; noises left over do not count."""
    strict, reward = (scores(evaluation, method, metric) for metric in ("strict", "reward"))
    captions: dict[str, list[tuple[str, str]]] = {}
    for key in strict:
        captions.setdefault(key[0], []).append(key)
    groups = [(caption, keys[i : i + count]) for caption, keys in captions.items() for i in range(0, len(keys), count)]
    return {
        (caption, keys[0][1]): strict[max(keys, key=lambda key: reward[key])]
        for caption, keys in groups
        if len(keys) == count
    }


def main() -> None:
    plot = axes("The best of N by the reward, miniature", "denoiser calls per chosen image", "strict")
    evaluations = {seed: judged(seed) for seed in SEEDS}
    first, with_guidance = evaluations[SEEDS[0]], guided(2.0)
    arms: dict[str, tuple[int, list[tuple[Path, str]], str, str]] = {
        "plain": (STEPS, [(first, "standard")], "#444444", "x"),
        f"plain × {best_factor()}": (STEPS, [(plain_scaled(), "rescale")], "#3b6fb6", "^"),
        BEST: (STEPS + 1, [(folder, "npnet") for folder in evaluations.values()], "#c28a00", "o"),
        "plain, guidance 2": (2 * STEPS, [(with_guidance, "standard")], "#444444", "+"),
        f"plain × {best_factor()}, guidance 2": (2 * STEPS, [(with_guidance, "rescale")], "#3b6fb6", "v"),
        f"{BEST}, guidance 2": (2 * STEPS + 1, [(with_guidance, f"best_{seed}") for seed in SEEDS], "#c28a00", "*"),
    }
    rows = []
    for count in COUNTS:
        plain = chosen(first, "standard", count)
        for noise, (calls, sources, _, _) in arms.items():
            found = averaged(chosen(folder, method, count) for folder, method in sources)
            change = "–" if noise == "plain" else interval(gain(plain, found))
            rows.append(
                {
                    "best of": count,
                    "noise": noise,
                    "denoiser calls": count * calls,
                    "strict": f"{mean(found):.3f}",
                    "against plain, as many": change,
                }
            )
    for noise, (_, _, colour, marker) in arms.items():
        own: Iterable[dict] = [row for row in rows if row["noise"] == noise]
        points = [(row["denoiser calls"], float(row["strict"])) for row in own]
        plot.plot(*zip(*points, strict=True), marker=marker, color=colour, label=noise)
    plot.legend(frameon=False, loc="lower right")
    tabulate(__file__, rows)
    save_figure(__file__, plot)


if __name__ == "__main__":
    main()
