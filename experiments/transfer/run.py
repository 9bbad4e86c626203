"""Does golden noise hold when the sampler changes: steps, guidance, scheduler, or the denoiser itself?

python -m experiments.transfer.run
"""

from collections.abc import Sequence
from pathlib import Path

from experiments.guidance_free.run import (
    BEST,
    GUIDANCES,
    MODELS,
    SEARCH,
    guided,
    identifier,
    judged,
    network,
    predicted,
)
from experiments.study import (
    SEEDS,
    Pairs,
    Scores,
    averaged,
    each,
    evaluated,
    gain,
    interval,
    mean,
    scores,
    tabulate,
    trained,
)
from experiments.transfer.models import STEPS, WEIGHTS, distilled, trained_anew

SAMPLERS = {
    "4 steps": ["pipeline.steps=4"],
    "20 steps": ["pipeline.steps=20"],
    "DPM++ 2M instead of DDIM": ["+pipeline.model.scheduler.name=DPMSolverMultistepScheduler"],
}
# Full inversions of a path of four steps; the published networks learnt at 10 steps and are used at 50.
FOUR = Pairs("full_inversion-4", 12_000, (SEARCH, "search.steps=4"))
ALONE = "evaluation.methods=[standard]"


class Table:
    """A row per sampler and network, each compared with plain noise in the same sampler."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def add(self, sampler: str, learnt_at: str, plain: Scores, found: Sequence[Scores]) -> None:
        pooled = averaged(found)
        self.rows.append(
            {
                "sampled with": sampler,
                "network": learnt_at,
                "plain": f"{mean(plain):.3f}",
                "golden": f"{mean(pooled):.3f}",
                "gain": interval(gain(plain, pooled)),
                "each training": each((mean(one) - mean(plain) for one in found), "+.3f"),
            }
        )


def main() -> None:
    table = Table()
    table.add("as learnt: 10 steps", BEST, scores(judged(SEEDS[0]), "standard"), predicted(BEST))
    for guidance in GUIDANCES:
        folder = guided(guidance)
        table.add(f"guidance {guidance:g}", BEST, scores(folder, "standard"), [scores(folder, "npnet")])
    add_samplers(table)
    add_models(table)
    tabulate(__file__, table.rows)


def add_samplers(table: Table) -> None:
    """Other samplers; networks that learnt at 10 steps, and some that learnt at 4."""
    ten, four = ({f"{at}_{seed}": found(seed) for seed in SEEDS} for at, found in (("ten", at_ten), ("four", at_four)))
    for sampler, options in SAMPLERS.items():
        folder = evaluated(
            f"transfer/{sampler.replace(' ', '-').replace('+', 'p')}", ALONE, "~metric.reward", *options,
            networks=ten | four,
        )  # fmt: skip
        plain = scores(folder, "standard")
        table.add(sampler, f"{BEST}, 10 steps", plain, [scores(folder, name) for name in ten])
        table.add(sampler, f"{BEST}, 4 steps", plain, [scores(folder, name) for name in four])
    folder = evaluated("transfer/10-steps", ALONE, "~metric.reward", networks=four)
    table.add("10 steps", f"{BEST}, 4 steps", scores(folder, "standard"), [scores(folder, name) for name in four])


def at_ten(seed: int) -> Path:
    return network(BEST, seed)


def at_four(seed: int) -> Path:
    return trained("transfer/four", FOUR, seed, *MODELS[BEST])


def add_models(table: Table) -> None:
    """Denoisers that no network has seen."""
    second = {
        "second model, trained anew": (trained_anew(), []),
        f"distilled model, {STEPS} steps": (distilled(), [f"pipeline.steps={STEPS}"]),
    }
    used = ("svd_unet+unet", "denoiser_lora", BEST)
    for name, (source, options) in second.items():
        networks = {f"{identifier(model)}_{seed}": network(model, seed) for model in used for seed in SEEDS}
        unet = [f"+pipeline.model.unet.source={source}", f"+pipeline.model.unet.weight_name={WEIGHTS}"]
        folder = evaluated(
            f"transfer/{source.name}", ALONE, "~metric.reward", *unet, *options,
            networks=networks, searches={"own": ["full_inversion"]},
        )  # fmt: skip
        plain = scores(folder, "standard")
        table.add(name, "its own full inversion", plain, [scores(folder, "own")])
        for model in used:
            table.add(name, model, plain, [scores(folder, f"{identifier(model)}_{seed}") for seed in SEEDS])


if __name__ == "__main__":
    main()
