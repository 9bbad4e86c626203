"""Train NPNet: `python train.py --help`."""

from golden_noise.cli.jobs import main

if __name__ == "__main__":
    main("train")
