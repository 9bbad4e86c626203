"""Train NPNet and evaluate it: `python train.py model=svd_unet+unet`, `--help` for the options."""

from golden_noise.cli.entry import run


def job(config):
    from golden_noise.training.job import train  # late: --help must not wait for torch

    train(config)


if __name__ == "__main__":
    run(job, "train")
