"""How many pairs does NPNet need, and does it help to keep only preferred ones?

python -m experiments.data.run
"""

from pathlib import Path

from experiments.study import (
    ALONE,
    REDENOISE,
    SEEDS,
    SMOKE,
    Pairs,
    Scores,
    averaged,
    axes,
    each,
    evaluated,
    explained,
    gain,
    identifier,
    interval,
    mean,
    save_figure,
    scores,
    spread,
    tabulate,
    trained,
)
from golden_noise.search.redenoise import Redenoise

SIZES = (100, 200) if SMOKE else (500, 1000, 2000, 4000, 8000, 20_000)
SETS = {f"{size:,}": Pairs(f"redenoise-{size}", size, REDENOISE) for size in SIZES}
# Of the same 8,000, those whose golden image the reward prefers; to be compared with as many that nobody chose.
SETS["of 8,000, the reward's choice"] = Pairs("redenoise-reward", 8000, (*REDENOISE, "collection.select_by=reward"))
STEPS = 30 if SMOKE else 2250  # of every training, so that the sets differ in their pairs alone
SEARCH = Redenoise(steps=10, denoising_guidance=5.5, inversion_guidance=1.0, rounds=1)  # conf/search/redenoise.yaml
RECIPE = ["model=unet", "trainer.max_epochs=-1", f"+trainer.max_steps={STEPS}"]


def main() -> None:
    networks = {
        seed: {name: trained(f"data/{pairs.name}", pairs, seed, *RECIPE) for name, pairs in SETS.items()}
        for seed in SEEDS
    }
    folders = {seed: judged(seed, found) for seed, found in networks.items()}
    shares = {seed: explained(found, SEARCH) for seed, found in networks.items()}
    plain = scores(folders[SEEDS[0]], "standard")
    plot = axes("Gain against the number of pairs, model=unet, 3 trainings each", "pairs", "strict")
    rows = []
    for name, pairs in SETS.items():
        found: list[Scores] = [scores(folders[seed], identifier(pairs.name)) for seed in SEEDS]
        rows.append(
            {
                "pairs": name,
                "explained": each(shares[seed][name] for seed in SEEDS),
                "strict": f"{mean(averaged(found)):.3f}",
                "gain": interval(gain(plain, averaged(found))),
                "each training": each((mean(one) - mean(plain) for one in found), "+.3f"),
            }
        )
        if pairs.overrides == REDENOISE:
            spread(plot, pairs.count, plain, averaged(found), fmt="o", color="#c28a00")
    plot.axhline(mean(plain), color="#444444", linestyle=":", label="plain noise")
    plot.set_xscale("log")
    plot.legend(frameon=False, loc="upper left")
    tabulate(__file__, rows)
    save_figure(__file__, plot)


def judged(seed: int, networks: dict[str, Path]) -> Path:
    """The networks of a seed on the held-out prompts."""
    named = {identifier(SETS[name].name): npnet for name, npnet in networks.items()}
    return evaluated(f"data/{seed}", ALONE, "~metric.reward", networks=named)


if __name__ == "__main__":
    main()
