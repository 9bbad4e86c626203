"""`golden-noise COMMAND`, also as `python -m golden_noise COMMAND`: the four jobs, and the tools beside them."""

import sys
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version

from golden_noise.extras import lacking
from golden_noise.invocation import PROGRAM

JOBS = {
    "collect": "collect pairs of random and golden noise",
    "train": "train NPNet, then evaluate it",
    "evaluate": "compare images from several starting noises",
    "generate": "draw images",
}
#: What each tool does, and the module whose `main` it is.
TOOLS = {
    "app": ("a page in the browser that draws, compares and searches", "golden_noise.app.command"),
    "pairs": ("check, count, import and export folders of noise pairs", "golden_noise.cli.pairs"),
    "sweep": ("tables of many trainings", "golden_noise.sweeps.commands"),
    "convert": ("write a network as one file, or from one", "golden_noise.cli.convert"),
    "config": ("list the configs, and copy one to change it", "golden_noise.cli.configs"),
}


def main() -> None:
    """Runs a job or a tool with the rest of the command line."""
    command, rest = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    try:
        if command in JOBS:
            import_module("golden_noise.cli.jobs").main(command)
        elif command in TOOLS:
            import_module(TOOLS[command][1]).main(rest)
        elif command == "--version":
            print(f"{PROGRAM} {version('golden-noise')}")
        else:
            _usage(command)
    except ModuleNotFoundError as error:
        missing = lacking(error, command)
        if missing is None:
            raise
        print(f"error: {missing}", file=sys.stderr)
        sys.exit(2)


def _usage(command: str) -> None:
    known = command in ("-h", "--help")
    if command and not known:
        near = get_close_matches(command, [*JOBS, *TOOLS], n=1)
        print(f"error: no command {command!r}{f': did you mean {near[0]}?' if near else ''}\n", file=sys.stderr)
    lines = [f"  {name:10}{about}" for name, about in {**JOBS, **{name: TOOLS[name][0] for name in TOOLS}}.items()]
    print(f"usage: {PROGRAM} COMMAND ...; --help after a command says more\n", *lines, sep="\n")
    sys.exit(0 if known else 2)


if __name__ == "__main__":
    main()
