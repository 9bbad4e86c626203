"""Tools for many runs: `python -m golden_noise sweeps COMMAND`, `--help` for the commands."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from golden_noise.errors import UserError


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; a mistake is one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m golden_noise sweeps", description="Tools for many runs.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    summarize = commands.add_parser(
        "summarize",
        help="table and page of a sweep",
        description="Writes summary.csv and summary.html of the trainings below FOLDER: what varied, results grouped"
        " over seeds, learning curves. Sweeps of train.py do so by themselves when they end.",
    )
    summarize.add_argument("folder", type=Path, metavar="FOLDER")
    summarize.set_defaults(run=_summarize)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"error: {error.strerror or error}: {error.filename}", file=sys.stderr)
        sys.exit(2)


def _summarize(options: argparse.Namespace) -> None:
    from golden_noise.sweeps.summary import summarize

    summarize(options.folder)
