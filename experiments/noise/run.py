"""Is golden noise still Gaussian, and do images still differ between seeds?

python -m experiments.noise.run

Draws nothing of its own: the measures are those of the evaluations of experiments/guidance_free.
"""

import json
from typing import Any

from experiments.guidance_free.run import BEST, CONTROLS, MODELS, identifier, judged
from experiments.study import SEEDS, each, tabulate

NOISE = ("variance", "norm", "kurtosis", "autocorrelation", "move")


def main() -> None:
    summaries = [json.loads((judged(seed) / "results.json").read_text()) for seed in SEEDS]
    methods = {"standard noise": "standard", "full inversion": "search"}
    methods |= {model: "npnet" if model == BEST else identifier(model) for model in MODELS}
    methods |= {f"control: {control}": control for control in CONTROLS}
    rows: list[dict[str, Any]] = []
    for name, method in methods.items():
        found = [summary for summary in summaries if method in summary["methods"]]
        if method == "standard":
            found = found[:1]
        row = {"noise": name}
        row |= {
            measure: each((one["noise"][measure]["methods"][method]["mean"] for one in found), ".2f")
            for measure in NOISE
        }
        for space in ("pixels", "reward"):
            changes = [one["diversity"][space]["differences"].get(method) for one in found]
            means = [one["diversity"][space]["methods"][method]["mean"] for one in found]
            row[f"diversity, {space}"] = each(means)
            if changes[0]:
                low, high = changes[0]["ci95"]
                row[f"change of it, {space}"] = f"{changes[0]['mean']:+.4f} [{low:+.4f}, {high:+.4f}]"
            else:
                row[f"change of it, {space}"] = "–"
        rows.append(row)
    tabulate(__file__, rows)


if __name__ == "__main__":
    main()
