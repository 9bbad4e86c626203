"""Collect noise pairs: `python collect.py --help`."""

from golden_noise.cli.jobs import main

if __name__ == "__main__":
    main("collect")
