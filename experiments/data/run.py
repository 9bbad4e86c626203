"""How many pairs does NPNet need, and does it help to keep only preferred ones?

python -m experiments.data.run
"""

from experiments.study import SEEDS, SMOKE, Pairs, evaluated, gain, interval, mean, scores, tabulate, trained

SIZES = (100, 200) if SMOKE else (500, 1000, 2000, 4000, 8000, 16_000, 20_000)
# Of the same 16,000, those whose golden image the reward, or the exact detector, prefers.
SELECTIONS = {"the reward's choice": "reward", "the detector's choice": "soft"}
STEPS = 30 if SMOKE else 2250  # of every training, so that the sets differ in their pairs alone


def main() -> None:
    sets = {f"{size:,} pairs": Pairs(f"data-{size}", size) for size in SIZES}
    for name, metric in SELECTIONS.items():
        sets[name] = Pairs(f"data-{metric}", 16_000, (f"collection.select_by={metric}",))
    rows = []
    for seed in SEEDS:
        length = ["trainer.max_epochs=-1", f"+trainer.max_steps={STEPS}"]
        networks = {p.name.replace("-", "_"): trained(f"data/{p.name}", p, seed, *length) for p in sets.values()}
        folder = evaluated(f"data/{seed}", "evaluation.methods=[standard]", "~metric.reward", networks=networks)
        plain = scores(folder, "standard")
        for name, pairs in sets.items():
            found = scores(folder, pairs.name.replace("-", "_"))
            rows.append(
                {"pairs": name, "seed": seed, "strict": f"{mean(found):.3f}", "gain": interval(gain(plain, found))}
            )
    rows.sort(key=lambda row: list(sets).index(str(row["pairs"])))
    tabulate(__file__, rows)


if __name__ == "__main__":
    main()
