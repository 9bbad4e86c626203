"""Compare images from several starting noises on held-out prompts. Writes results.json and report.html.

python evaluate.py experiment=shapes npnet=outputs/train/RUN/npnet/best prompts.count=500
"""

from golden_noise.cli.entry import run


def job(config):
    from golden_noise.evaluation.job import evaluate_job  # late: --help must not wait for torch

    evaluate_job(config)


if __name__ == "__main__":
    run(job, "evaluate")
