"""Golden noise against choosing the best of several images, at equal cost and together.

python -m experiments.best_of_n.run

Draws nothing of its own: the images of experiments/guidance_free are grouped by N, and the reward chooses one of each
group, as it would among N drawn images. The exact detector judges the choice. Captions have more or fewer noises there,
so that different N cover different captions: only rows of equal N compare.
"""

from pathlib import Path

from experiments.guidance_free.run import BEST, STEPS, best_factor, guided, judged, plain_scaled
from experiments.study import SEEDS, Scores, averaged, gain, interval, mean, scores, tabulate

COUNTS = (1, 2, 4)


def chosen(evaluation: Path, method: str, count: int) -> Scores:
    """Strict of the image with the highest reward among `count` noises of a caption; noises left over do not count.

    With as many noises of every caption (`prompts.repeats`), different counts cover the same captions.
    """
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
    evaluations = {seed: judged(seed) for seed in SEEDS}
    first, with_guidance = evaluations[SEEDS[0]], guided(2.0)
    arms: dict[str, tuple[int, list[tuple[Path, str]]]] = {
        "plain": (STEPS, [(first, "standard")]),
        f"plain × {best_factor()}": (STEPS, [(plain_scaled(), "rescale")]),
        BEST: (STEPS + 1, [(folder, "npnet") for folder in evaluations.values()]),
        "plain, guidance 2": (2 * STEPS, [(with_guidance, "standard")]),
        f"plain × {best_factor()}, guidance 2": (2 * STEPS, [(with_guidance, "rescale")]),
        f"{BEST}, guidance 2": (2 * STEPS + 1, [(with_guidance, f"best_{seed}") for seed in SEEDS]),
    }
    rows = []
    for count in COUNTS:
        plain = chosen(first, "standard", count)
        for noise, (calls, sources) in arms.items():
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
    tabulate(__file__, rows)


if __name__ == "__main__":
    main()
