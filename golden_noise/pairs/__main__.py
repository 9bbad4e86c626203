"""Tools for folders of noise pairs: `python -m golden_noise.pairs COMMAND`, `--help` for the commands."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from golden_noise.errors import UserError
from golden_noise.pairs.verify import problems


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; a mistake is one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m golden_noise.pairs", description="Tools for noise pairs.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_verify(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"error: {error.strerror or error}: {error.filename}", file=sys.stderr)
        sys.exit(2)


def _add_verify(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "verify",
        help="check every shard against the index",
        description="Reads every shard of FOLDER to its end and names each bad file in one line. Exit code 1 if any.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> None:
    bad = 0
    for problem in problems(options.folder):
        tqdm.write(problem)  # past the progress bar
        bad += 1
    if bad:
        sys.exit(1)
    print(f"{options.folder}: all files are as {options.folder / 'index.json'} says")


if __name__ == "__main__":
    main()
