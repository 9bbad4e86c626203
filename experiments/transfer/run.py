"""Does golden noise hold when the sampler changes: steps, guidance, scheduler, or the denoiser itself?

python -m experiments.transfer.run
"""

from collections.abc import Sequence

from experiments.guidance_free.run import (
    BEST,
    GUIDANCES,
    guided,
    judged,
    network,
    predicted,
)
from experiments.study import (
    ALONE,
    SEEDS,
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
)
from experiments.transfer.models import STEPS, WEIGHTS, distilled, trained_anew

SAMPLERS = {
    "4 steps": ["pipeline.steps=4"],
    "DPM++ 2M instead of DDIM": ["+pipeline.model.scheduler.name=DPMSolverMultistepScheduler"],
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
    # Last what experiments/guidance_free draws, too, perhaps at the same time.
    models, samplers = with_models(), with_samplers()
    base = row("as learnt: 10 steps, no guidance", BEST, scores(judged(SEEDS[0]), "standard"), predicted(BEST))
    tabulate(__file__, [base, *with_guidance(), *samplers, *models])


def with_guidance() -> list[Row]:
    """The network of the first seed, whose golden noise is meant to replace guidance, used with it."""
    folders = {guidance: guided(guidance) for guidance in GUIDANCES}
    return [
        row(f"guidance {guidance:g}", f"{BEST}, seed 1", scores(folder, "standard"), [scores(folder, "npnet")])
        for guidance, folder in folders.items()
    ]


def with_samplers() -> list[Row]:
    """Other samplers of the same model."""
    networks = {f"copy_{seed}": network(BEST, seed) for seed in SEEDS}
    rows = []
    for sampler, options in SAMPLERS.items():
        folder = evaluated(
            f"transfer/{sampler.replace(' ', '-').replace('+', 'p')}", ALONE, "~metric.reward", *options,
            networks=networks,
        )  # fmt: skip
        rows.append(row(sampler, BEST, scores(folder, "standard"), [scores(folder, one) for one in networks]))
    return rows


def with_models() -> list[Row]:
    """Denoisers that no network has seen."""
    second = {
        "second model, trained anew": (trained_anew(), []),
        f"distilled model, {STEPS} steps": (distilled(), [f"pipeline.steps={STEPS}"]),
    }
    used, rows = ("denoiser_lora", BEST), []
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
