"""Does a reward make golden noise better, or is it exploited? Optimise the tiny CLIP, judge by the exact detector.

python -m experiments.hacking.run
"""

from pathlib import Path

from experiments.frontier.run import STEPS, golden
from experiments.hacking import finetune
from experiments.study import (
    SMOKE,
    Pairs,
    axes,
    evaluated,
    gain,
    identifier,
    interval,
    mean,
    save_figure,
    scores,
    tabulate,
    trained,
)

PROMPTS = Pairs("unused", 4000)  # the objective reads prompts alone
BETAS = ("1",) if SMOKE else ("1", "256")  # 256, the size of a noise, is the paper's equation
COUNT = 64 if SMOKE else 600


def by_reward(beta: str, *overrides: str) -> Path:
    """The demo's network, trained on by a reward."""
    name = f"hacking/beta-{beta}" if not overrides else f"hacking/swap-{beta}"
    start = [f"npnet={golden(1)}", "recipe.denoiser_lr=3e-4", "objective=reward", f"objective.beta={beta}"]
    return trained(name, PROMPTS, 1, STEPS, *start, "recipe.epochs=1", *overrides)


def main() -> None:
    networks = {f"beta_{identifier(beta)}": by_reward(beta) for beta in BETAS}
    networks["redness"] = by_reward("1", "reward=redness")
    methods = "evaluation.methods=[standard,npnet,shuffled,rescaled]"
    options = [STEPS, f"prompts.count={COUNT}", f"npnet={golden(1)}", methods, "metric=[shapes,redness]"]
    scaled = {"scaled": ["rescale", "factor=0.7"]}
    folder = evaluated("hacking/networks", *options, networks=networks, searches=scaled)
    lora = finetune.finetuned(sampler_steps=4)
    weights = [f"+pipeline.model.loras.tuned={{source: {lora}, weight_name: {finetune.WEIGHTS}}}"]
    tuned = evaluated(
        "hacking/finetuned",
        STEPS,
        f"prompts.count={COUNT}",
        "evaluation.methods=[standard]",
        "metric=[shapes,redness]",
        *weights,
    )
    rows = [(folder, "standard", "plain noise"), (folder, "scaled", "plain noise × .7")]
    rows += [(folder, "npnet", "golden noise of pairs"), (folder, "shuffled", "the same, prompts swapped")]
    rows += [(folder, name, f"reward, β = {beta}") for name, beta in zip(networks, BETAS, strict=False)]
    rows += [(folder, "redness", "reward swapped for redness"), (tuned, "standard", "the generator fine-tuned")]
    plain = scores(folder, "standard")
    table, points = [], {}
    for source, method, name in rows:
        found = {metric: scores(source, method, metric) for metric in ("reward", "strict", "soft", "redness")}
        points[name] = mean(found["reward"]), mean(found["strict"])
        table.append(
            {
                "what": name,
                "reward": f"{mean(found['reward']):.2f}",
                "strict": f"{mean(found['strict']):.3f}",
                "soft": f"{mean(found['soft']):.3f}",
                "redness": f"{mean(found['redness']):+.3f}",
                "gain in strict": "–"
                if method == "standard" and source == folder
                else interval(gain(plain, found["strict"])),
            }
        )
    plot = axes("What is optimised, and what judges", "reward, a tiny CLIP", "strict, the exact detector")
    for name, (x, y) in points.items():
        plot.plot([x], [y], marker="o", label=name, linestyle="none")
    plot.legend(frameon=False, fontsize="small")
    tabulate(__file__, table)
    save_figure(__file__, plot)


if __name__ == "__main__":
    main()
