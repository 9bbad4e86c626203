"""Tools for many runs: `python -m golden_noise sweeps COMMAND`, `--help` for the commands."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    _add_search(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit("interrupted: run the same command again to go on")
    except OSError as error:
        print(f"error: {error.strerror or error}: {error.filename}", file=sys.stderr)
        sys.exit(2)


def _summarize(options: argparse.Namespace) -> None:
    from golden_noise.sweeps.summary import summarize

    summarize(options.folder)


def _add_search(commands: Any) -> None:
    search = commands.add_parser(
        "search",
        help="hyperparameter search with Optuna",
        description="Runs trials of train.py with values from SPACE, a file of conf/sweep or a path, and stops those"
        " that fall behind. The same command goes on with a search that was killed; started again meanwhile, it shares"
        " the work.",
    )
    search.add_argument("space", metavar="SPACE")
    search.add_argument(
        "--config", nargs="+", default=[], metavar="KEY=VALUE", help="for every trial, as for train.py: pipeline=sdxl"
    )
    search.add_argument("--trials", type=_positive, default=30, metavar="N", help="how many in the end (30)")
    search.add_argument("--workers", type=_positive, default=1, metavar="N", help="trials at the same time (1)")
    search.add_argument("--name", help="of the folder below outputs/train (search-SPACE)")
    search.set_defaults(run=_search)


def _search(options: argparse.Namespace) -> None:
    try:
        from golden_noise.sweeps.search import search
        from golden_noise.sweeps.space import read_space
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "optuna":
            raise
        raise UserError("the search needs Optuna: pip install 'golden_noise[search]'") from error
    name = options.name or f"search-{Path(options.space).stem}"
    search(read_space(options.space), name, options.config, options.trials, options.workers)


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number
