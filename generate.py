"""Draw a prompt from standard and from golden noise: `python generate.py prompt="a red circle" seed=3`."""

from golden_noise.cli import run


def job(config):
    from golden_noise.generation import generate  # late: --help must not wait for torch

    generate(config)


if __name__ == "__main__":
    run(job, "generate")
