"""The four jobs, each as `python JOB.py` and `golden-noise JOB`. Its docstring is what `--help` begins with.

Imports are late, so that `--help` does not wait for torch.
"""

from omegaconf import DictConfig

from golden_noise.cli.entry import run


def _collect(config: DictConfig) -> None:
    """Collect noise pairs in shards: a search finds golden noise for every prompt, metrics select the pairs.

    python collect.py experiment=shapes prompts.count=5000
    python collect.py pipeline=sdxl prompts=file prompts.path=prompts.csv metric=pickscore
    """
    from golden_noise.collecting.job import collect_job
    from golden_noise.collecting.report import report_pairs

    if collect_job(config):
        report_pairs(config)


def _train(config: DictConfig) -> None:
    """Train NPNet on shards of noise pairs, then evaluate it.

    The miniature's pairs are collected first if they are missing.

    python train.py experiment=shapes
    python train.py pipeline=sdxl model=unet recipe.epochs=10 name=unet
    """
    from golden_noise.training.job import train

    train(config)


def _evaluate(config: DictConfig) -> None:
    """Compare images from several starting noises on held-out prompts. Writes results.json and report.html.

    python evaluate.py experiment=shapes npnet=outputs/train/RUN/npnet/best prompts.count=500
    """
    from golden_noise.evaluation.job import evaluate_job

    evaluate_job(config)


def _generate(config: DictConfig) -> None:
    """Draw images from standard and from golden noise, side by side.

    python generate.py prompt="a blue triangle left of a red circle" seed=3
    """
    from golden_noise.generation.job import generate

    generate(config)


JOBS = {"collect": _collect, "train": _train, "evaluate": _evaluate, "generate": _generate}


def main(job: str) -> None:
    """Run a job with the command line's settings."""
    run(JOBS[job], job)
