"""The whole default job, and the paper's recipe: does NPNet keep the search's gain, and is it golden noise?

python -m experiments.first_light.run
"""

import json

from experiments.study import OUTPUTS, PAIRS, SMOKE, once, run, tabulate
from golden_noise.evaluation.verdict import change, compared, name, plain

RECIPES = {"results": [], "paper": ["experiment=shapes_paper"]}  # by table


def summary(table: str) -> dict:
    """The results of the training and evaluation that a table shows."""
    small = ["prompts.count=200", "recipe.epochs=1"] if SMOKE else []
    judged = f"evaluation.prompts.count={PAIRS}"
    folder = OUTPUTS / f"train/first_light/{table}"
    results = folder / "evaluation/results.json"
    command = ["train.py", f"name=first_light/{table}", f"folder={folder}", judged, *RECIPES[table], *small]
    once(results, lambda: run(*command))
    return json.loads(results.read_text())


def main() -> None:
    for table in RECIPES:
        found = summary(table)
        tabulate(__file__, [row(found, method) for method in found["methods"]], table)


def row(summary: dict, method: str) -> dict[str, object]:
    found: dict[str, object] = {"starting noise": name(method)}
    for metric in ("strict", "soft", "reward"):
        against = compared(summary, metric, "standard", method)
        found[metric] = plain(summary["methods"][method][metric]["mean"])
        found[f"change of {metric}"] = change(against) if against else "–"
        if metric == "strict":
            found["p"] = f"{against['p_value']:.2g}" if against else "–"
    return found


if __name__ == "__main__":
    main()
