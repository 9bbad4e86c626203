"""Which guidances and how many rounds for re-denoise sampling, where the sampler is unguided and where over-guided?

python -m experiments.redenoise.run
"""

from experiments.study import ALONE, SMOKE, evaluated, gain, identifier, interval, mean, scores, tabulate

# (w1, w2, rounds); with w1 = w2 the round trip has no gap that could write the prompt into the noise.
SETTINGS = {
    "10 steps, no guidance": (
        ["pipeline.steps=10", "pipeline.guidance=1"],
        [(5.5, 1, 1), (9, 1, 1), (5.5, 0, 1), (5.5, 1, 3), (3, 0, 3), (1, 1, 3)],
    ),
    "4 steps, guidance 5.5": (
        ["pipeline.steps=4", "pipeline.guidance=5.5"],
        [(5.5, 1, 1), (3, 0, 3), (1, 1, 3)],
    ),
}


def main() -> None:
    rows = []
    for sampler, (options, chosen) in SETTINGS.items():
        tried = chosen[-2:] if SMOKE else chosen
        searches = {
            identifier(f"w{w1}_{w2}_{rounds}"): [
                "redenoise",
                f"denoising_guidance={w1}",
                f"inversion_guidance={w2}",
                f"rounds={rounds}",
            ]
            for w1, w2, rounds in tried
        }
        name = sampler.replace(",", "").replace(" ", "-")
        folder = evaluated(f"redenoise/{name}", ALONE, "~metric.reward", *options, searches=searches)
        plain = scores(folder, "standard")
        for search, (w1, w2, rounds) in zip(searches, tried, strict=True):
            found = scores(folder, search)
            calls = rounds * ((1 if w1 == 1 else 2) + 1)  # guidance costs two; 0 and 1 cost one
            rows.append(
                {
                    "sampler": sampler,
                    "plain": f"{mean(plain):.3f}",
                    "w1": w1,
                    "w2": w2,
                    "rounds": rounds,
                    "denoiser calls": calls,
                    "strict": f"{mean(found):.3f}",
                    "gain": interval(gain(plain, found)),
                }
            )
    tabulate(__file__, rows)


if __name__ == "__main__":
    main()
