"""Collect noise pairs: `python collect.py pipeline=shapes search=redenoise`, `--help` for the options."""

from golden_noise.cli import run


def job(config):
    from golden_noise.collection import collect  # late: --help must not wait for torch

    collect(config)


if __name__ == "__main__":
    run(job, "collect")
