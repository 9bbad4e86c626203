"""The whole default job: does NPNet keep the search's gain, and is it golden noise?

python -m experiments.first_light.run
"""

import json

from experiments.study import OUTPUTS, SMOKE, once, run, tabulate
from golden_noise.evaluation.verdict import change, compared, name, plain

FOLDER = OUTPUTS / "train/first_light"


def main() -> None:
    small = ["prompts.count=200", "evaluation.prompts.count=64", "pipeline.recipe.epochs=1"] if SMOKE else []
    results = FOLDER / "evaluation/results.json"
    once(results, lambda: run("train.py", "name=first_light", f"folder={FOLDER}", *small))
    summary = json.loads(results.read_text())
    tabulate(__file__, [row(summary, method) for method in summary["methods"]])


def row(summary: dict, method: str) -> dict[str, object]:
    found = {"starting noise": name(method)}
    for metric in ("strict", "soft", "reward"):
        against = compared(summary, metric, "standard", method)
        found[metric] = plain(summary["methods"][method][metric]["mean"])
        found[f"change of {metric}"] = change(against) if against else "–"
        if metric == "strict":
            found["p"] = f"{against['p_value']:.2g}" if against else "–"
    return found


if __name__ == "__main__":
    main()
