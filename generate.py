"""Draw images from standard and from golden noise, side by side.

python generate.py prompt="a blue triangle left of a red circle" seed=3
"""

from golden_noise.cli.entry import run


def job(config):
    from golden_noise.generation.job import generate  # late: --help must not wait for torch

    generate(config)


if __name__ == "__main__":
    run(job, "generate")
