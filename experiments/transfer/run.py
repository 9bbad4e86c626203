"""Does golden noise hold when the sampler changes: steps, guidance, scheduler, or the denoiser itself?

python -m experiments.transfer.run
"""

from collections.abc import Sequence

from experiments.guidance_free.run import (
    BEST,
    GUIDANCES,
    INVERSIONS,
    MODELS,
    SEARCH,
    guided,
    judged,
    network,
    predicted,
    with_guidance,
)
from experiments.study import (
    ALONE,
    SEEDS,
    Pairs,
    Scores,
    averaged,
    each,
    evaluated,
    gain,
    identifier,
    interval,
    mean,
    scores,
    tabulate,
    trained,
)
from experiments.transfer.models import STEPS, WEIGHTS, distilled, trained_anew

FEW_STEPS = Pairs("full_inversion-4-steps", INVERSIONS.count, (SEARCH, "search.steps=4"))
FEW = f"{BEST}, of 4 steps"
# What each samples with, and which networks' noise.
SAMPLERS = {
    "10 steps, no guidance": ([], [FEW]),
    "4 steps": (["pipeline.steps=4"], [BEST, FEW]),
    "DPM++ 2M instead of DDIM": (["+pipeline.model.scheduler.name=DPMSolverMultistepScheduler"], [BEST]),
}
Row = dict[str, object]


def row(sampler: str, learnt: str, plain: Scores, found: Sequence[Scores]) -> Row:
    """A network, compared with plain noise in the same sampler; pooled over its trainings."""
    pooled = averaged(found)
    return {
        "sampled with": sampler,
        "network": learnt,
        "plain": f"{mean(plain):.3f}",
        "golden": f"{mean(pooled):.3f}",
        "gain": interval(gain(plain, pooled)),
        "each training": each((mean(one) - mean(plain) for one in found), "+.3f"),
    }


def main() -> None:
    samplers = with_samplers()  # first what experiments/guidance_free does not draw, perhaps at the same time
    base = row("10 steps, no guidance", BEST, scores(judged(SEEDS[0]), "standard"), predicted(BEST))
    guided_rows = [
        row(f"guidance {guidance:g}", BEST, scores(guided(guidance), "standard"), with_guidance(guidance))
        for guidance in GUIDANCES
    ]
    tabulate(__file__, [base, *guided_rows, *samplers])
    tabulate(__file__, with_models(), "models")


def with_samplers() -> list[Row]:
    """Other samplers of the same model, and networks that learnt another sampler's inversions, in four steps."""
    few = [trained("transfer/few_steps", FEW_STEPS, seed, *MODELS[BEST]) for seed in SEEDS]
    networks = {BEST: [network(BEST, seed) for seed in SEEDS], FEW: few}
    rows = []
    for sampler, (options, used) in SAMPLERS.items():
        named = {f"{identifier(name)}_{seed}": networks[name][i] for name in used for i, seed in enumerate(SEEDS)}
        folder = evaluated(f"transfer/{identifier(sampler)}", ALONE, "~metric.reward", *options, networks=named)
        plain = scores(folder, "standard")
        for name in used:
            rows.append(row(sampler, name, plain, [scores(folder, f"{identifier(name)}_{seed}") for seed in SEEDS]))
    return rows


def with_models() -> list[Row]:
    """Denoisers that no network has seen."""
    second = {
        "second model, trained anew": (trained_anew(), []),
        f"distilled model, {STEPS} steps": (distilled(), [f"pipeline.steps={STEPS}"]),
    }
    used, rows = ("denoiser_lora", "denoiser copy"), []
    networks = {f"{identifier(model)}_{seed}": network(model, seed) for seed in SEEDS for model in reversed(used)}
    for name, (source, options) in second.items():
        unet = [f"+pipeline.model.unet.source={source}", f"+pipeline.model.unet.weight_name={WEIGHTS}"]
        folder = evaluated(
            f"transfer/{source.name}", ALONE, "~metric.reward", *unet, *options,
            networks=networks, searches={"own": ["full_inversion"]},
        )  # fmt: skip
        plain = scores(folder, "standard")
        rows.append(row(name, "none: its own full inversion", plain, [scores(folder, "own")]))
        for model in used:
            found = [scores(folder, f"{identifier(model)}_{seed}") for seed in SEEDS]
            rows.append(row(name, model, plain, found))
    return rows


if __name__ == "__main__":
    main()
