"""Compare images from several starting noises: `python evaluate.py --help`."""

from golden_noise.cli.jobs import main

if __name__ == "__main__":
    main("evaluate")
