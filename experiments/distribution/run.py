"""Learning where good noises lie, instead of where one noise should go, in 4 steps.

python -m experiments.distribution.run

The best of 8 noises is unrelated to the noise that it is searched for, so that a squared error on such pairs can only
learn the mean of all good noises. Optimal transport first couples the good noises of a caption with fresh noises: a
caption has 16, and a shard, which is a batch, holds four captions.
"""

import json
from pathlib import Path

from experiments.frontier.run import calls
from experiments.study import SEEDS, SMOKE, Pairs, evaluated, gain, interval, mean, scores, tabulate, trained

STEPS, SEED = "pipeline.steps=4", SEEDS[0]
NOISES, CAPTIONS = 16, 4
HELD_OUT = 32 if SMOKE else 600
BEST = ("search=best_of_n", "search.n=8")
SIZE = NOISES * CAPTIONS
GROUPED = (f"+prompts.repeats={NOISES}", f"collection.shard_size={SIZE}")
PAIRS = Pairs("distribution", 2000, (STEPS, *BEST, *GROUPED))
# Batches of whole shards; many short epochs.
BATCHES = (f"recipe.batch_size={SIZE}", "data.shuffle_shards=1", "recipe.epochs=10", STEPS)
OBJECTIVES = {"pairs": "a squared error on the pairs", "transport": "coupled by optimal transport"}
METHODS = {
    "standard": "plain noise",
    "constant": "best constant",
    "search": "best of 8 (the teacher)",
    **{name: f"network: {what}" for name, what in OBJECTIVES.items()},
    **{f"rescaled_{name}": f"plain noise, with the deviation of: {name}" for name in OBJECTIVES},
}


def variance(folder: Path, method: str) -> float:
    """Of a method's starting noise, as the evaluation measured it."""
    return json.loads((folder / "results.json").read_text())["noise"]["variance"]["methods"][method]["mean"]


def main() -> None:
    """Each network is evaluated as `npnet`, for its own control of rescaled noise."""
    found: dict[str, tuple[Path, str]] = {}
    for name in OBJECTIVES:
        network = trained(f"distribution/{name}", PAIRS, SEED, f"objective={name}", *BATCHES)
        methods = "standard,npnet,rescaled,constant,search" if name == "pairs" else "standard,npnet,rescaled"
        folder = evaluated(
            f"distribution/{name}",
            f"npnet={network}",
            STEPS,
            *BEST,
            f"prompts.count={HELD_OUT}",
            f"evaluation.methods=[{methods}]",
        )
        found |= {name: (folder, "npnet"), f"rescaled_{name}": (folder, "rescaled")}
        if name == "pairs":
            found |= {method: (folder, method) for method in ("standard", "constant", "search")}
    plain, constant = (scores(*found[method]) for method in ("standard", "constant"))
    rows = [
        {
            "starting noise": what,
            "variance": f"{variance(*found[method]):.2f}",
            "calls": f"{calls(*found[method]):g}",
            "reward": f"{mean(scores(*found[method], 'reward')):.2f}",
            "strict": f"{mean(scores(*found[method])):.3f}",
            "against plain noise": interval(gain(plain, scores(*found[method]))) if method != "standard" else "",
            "against the constant": interval(gain(constant, scores(*found[method]))) if method != "constant" else "",
        }
        for method, what in METHODS.items()
    ]
    tabulate(__file__, rows)


if __name__ == "__main__":
    main()
