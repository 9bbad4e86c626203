"""Collect noise pairs: `python collect.py pipeline=shapes search=redenoise`, `--help` for the options."""

from golden_noise.cli import run


def job(config):
    from golden_noise.collection import collect_job  # late: --help must not wait for torch
    from golden_noise.tracking import report_pairs

    if collect_job(config):
        report_pairs(config)


if __name__ == "__main__":
    run(job, "collect")
