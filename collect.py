"""Collect noise pairs in shards: a search finds golden noise for every prompt, metrics select the pairs.

python collect.py experiment=shapes prompts.count=5000
python collect.py pipeline=sdxl prompts=file prompts.path=prompts.csv metric=pickscore
"""

from golden_noise.cli.entry import run


def job(config):
    from golden_noise.collecting.job import collect_job  # late: --help must not wait for torch
    from golden_noise.collecting.report import report_pairs

    if collect_job(config):
        report_pairs(config)


if __name__ == "__main__":
    run(job, "collect")
