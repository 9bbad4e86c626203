"""Which network predicts golden noise best?

python -m experiments.variants.run
"""

from pathlib import Path

from experiments.study import (
    ALONE,
    REDENOISE,
    SEEDS,
    Pairs,
    about,
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

CONV = ["backbone=conv", "backbone_args={width:64}", "backbone_size=null", "pretrained=package:shapes/weights/pipeline"]
VARIANTS = {
    "unet": ["model=unet"],
    "vit": ["model=vit"],
    "svd_unet": ["model=svd_unet"],
    "svd_unet, raw signs": ["model=svd_unet", "model.npnet.signs=raw"],
    "e_unet": ["model=e_unet"],
    "svd_unet+unet": ["model=svd_unet+unet"],
    "svd_unet+unet, the backbone of unet": ["model=svd_unet+unet", *(f"model.npnet.{setting}" for setting in CONV)],
    "denoiser_lora": ["model=denoiser_lora"],
    "denoiser copy": ["model=denoiser_lora", "model.npnet.rank=null"],
}
PAIRS = Pairs("shapes-paper", 16_000, REDENOISE)  # those of first light
EPOCHS = 2


def networks(seed: int) -> dict[str, Path]:
    """Every variant's network of a seed, by identifier."""
    length = f"trainer.max_epochs={EPOCHS}"
    return {
        identifier(name): trained(f"variants/{identifier(name)}", PAIRS, seed, *options, length)
        for name, options in VARIANTS.items()
    }


def main() -> None:
    found = {seed: networks(seed) for seed in SEEDS}
    folders = [judged(seed, found[seed]) for seed in SEEDS]
    plain, search = (scores(folders[0], method) for method in ("standard", "search"))
    rows = [row("the search itself", interval(gain(plain, search)))]
    for name in VARIANTS:
        runs = [about(found[seed][identifier(name)]) for seed in SEEDS]
        values = [scores(folder, identifier(name)) for folder in folders]
        rows.append(
            row(
                name,
                interval(gain(plain, averaged(values))),
                each((mean(one) - mean(plain) for one in values), "+.3f"),
                each(run["explained"] for run in runs),
                runs[0]["parameters"],
                f"{min(run['forward_ms'] for run in runs) / runs[0]['forward_batch']:.2f}",
            )
        )
    tabulate(__file__, rows)


def row(
    variant: str, change: str, trainings: str = "", explained: str = "1", parameters: object = "–", ms: str = "–"
) -> dict[str, object]:
    return {
        "variant": variant,
        "explained": explained,
        "gain": change,
        "each training": trainings,
        "parameters": parameters,
        "ms per noise": ms,
    }


def judged(seed: int, named: dict[str, Path]) -> Path:
    """The networks of a seed on the held-out prompts; the search with the first seed."""
    methods = "evaluation.methods=[standard,search]" if seed == SEEDS[0] else ALONE
    return evaluated(f"variants/{seed}", methods, *REDENOISE, "~metric.reward", networks=named)


if __name__ == "__main__":
    main()
