"""Does golden noise hold when the sampler changes: steps, guidance, scheduler, or the denoiser itself?

python -m experiments.transfer.run
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.guidance_free.run import BEST, INVERSIONS, MODELS, SEARCH, best_factor, network, scaled
from experiments.study import (
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
FEW, COPY = f"{BEST}, of 4 steps", "denoiser copy"
# What each samples with, and which networks' noise.
SAMPLERS = {
    "10 steps, no guidance": ([], [BEST, FEW]),
    "20 steps": (["pipeline.steps=20"], [BEST]),
    "4 steps": (["pipeline.steps=4"], [BEST, FEW]),
    "DPM++ 2M instead of DDIM": (["+pipeline.model.scheduler.name=DPMSolverMultistepScheduler"], [BEST, FEW]),
    "guidance 1.5": (["pipeline.guidance=1.5"], [BEST]),
    "guidance 2": (["pipeline.guidance=2"], [BEST]),
}
Row = dict[str, object]


def row(sampler: str, noise: str, plain: Scores, found: Sequence[Scores]) -> Row:
    """A noise, compared with plain noise in the same sampler; a network's pooled over its trainings."""
    pooled = averaged(found)
    return {
        "sampled with": sampler,
        "noise": noise,
        "plain": f"{mean(plain):.3f}",
        "strict": f"{mean(pooled):.3f}",
        "gain": interval(gain(plain, pooled)),
        "each training": each((mean(one) - mean(plain) for one in found), "+.3f") if len(found) > 1 else "",
    }


def main() -> None:
    tabulate(__file__, with_samplers())
    tabulate(__file__, with_models(), "models")


def with_samplers() -> list[Row]:
    """Other samplers of the same model, and networks that learnt another sampler's inversions, in four steps."""
    few = [trained("transfer/few_steps", FEW_STEPS, seed, *MODELS[BEST]) for seed in SEEDS]
    networks = {BEST: [network(BEST, seed) for seed in SEEDS], FEW: few}
    rows = []
    for sampler, (options, used) in SAMPLERS.items():
        named = {f"{identifier(name)}_{seed}": networks[name][i] for name in used for i, seed in enumerate(SEEDS)}
        folder = drawn(identifier(sampler), named, BEST, *options)
        rows += rows_of(folder, sampler, used, BEST)
    return rows


def with_models() -> list[Row]:
    """Denoisers that no network has seen."""
    second = {
        "second model, trained anew": (trained_anew(), []),
        f"distilled model, {STEPS} steps": (distilled(), [f"pipeline.steps={STEPS}"]),
    }
    used, rows = (BEST, COPY), []
    networks = {f"{identifier(model)}_{seed}": network(model, seed) for seed in SEEDS for model in reversed(used)}
    for name, (source, options) in second.items():
        unet = [f"+pipeline.model.unet.source={source}", f"+pipeline.model.unet.weight_name={WEIGHTS}"]
        folder = drawn(source.name, networks, COPY, *unet, *options, searches={"own": ["full_inversion"]})
        rows.append(row(name, "its own full inversion", scores(folder, "standard"), [scores(folder, "own")]))
        rows += rows_of(folder, name, used, COPY)
    return rows


def drawn(
    name: str,
    networks: Mapping[str, Path],
    controlled: str,
    *options: str,
    searches: dict[str, list[str]] | None = None,
) -> Path:
    """An evaluation of networks beside scaled noise, and beside one model's first network that got other prompts."""
    methods = ["evaluation.methods=[standard,shuffled]", f"npnet={network(controlled, SEEDS[0])}"]
    options = (*methods, "~metric.reward", *options)
    return evaluated(f"transfer/{name}", *options, networks=networks, searches=scaled() | (searches or {}))


def rows_of(folder: Path, sampler: str, used: Sequence[str], controlled: str) -> list[Row]:
    found = {f"plain × {best_factor()}": [scores(folder, "rescale")]}
    found |= {name: [scores(folder, f"{identifier(name)}_{seed}") for seed in SEEDS] for name in used}
    found[f"control: {controlled}, given other prompts"] = [scores(folder, "shuffled")]
    return [row(sampler, noise, scores(folder, "standard"), several) for noise, several in found.items()]


if __name__ == "__main__":
    main()
