"""Tools for many runs: `golden-noise sweep COMMAND`, `--help` for the commands."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from golden_noise.cli.mistakes import run_command


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="golden-noise sweep", description="Tools for many runs.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    summarize = commands.add_parser(
        "summarize",
        help="table and page of a sweep",
        description="Writes summary.csv and summary.html of the trainings below FOLDER: what varied, results grouped"
        " over seeds, learning curves. Sweeps of trainings do so by themselves when they end.",
    )
    summarize.add_argument("folder", type=Path, metavar="FOLDER")
    summarize.set_defaults(run=_summarize)
    run_command(parser, arguments)


def _summarize(options: argparse.Namespace) -> None:
    from golden_noise.sweeps.summary import summarize

    summarize(options.folder)
