"""Train NPNet on shards of noise pairs, then evaluate it.

The miniature's pairs are collected first if they are missing.

    python train.py experiment=shapes
    python train.py pipeline=sdxl model=unet recipe.epochs=10 name=unet
"""

from golden_noise.cli.entry import run


def job(config):
    from golden_noise.training.job import train  # late: --help must not wait for torch

    train(config)


if __name__ == "__main__":
    run(job, "train")
