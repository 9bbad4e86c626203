"""`golden-noise config ls` and `cp`: the configs of an installed package, and a copy of one to change."""

import argparse
import re
import shutil
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path

from golden_noise.cli.conf import CONF, choices
from golden_noise.cli.mistakes import run_command
from golden_noise.errors import UserError
from golden_noise.invocation import PROGRAM


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} config", description="List the configs, and copy one.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    ls = commands.add_parser(
        "ls",
        help="list the groups, or the choices of one",
        description="Lists the groups and their choices; of one GROUP, what each choice is.",
    )
    ls.add_argument("group", nargs="?", metavar="GROUP", help="such as pipeline")
    ls.set_defaults(run=_ls)
    cp = commands.add_parser(
        "cp",
        help="copy a config to change it",
        description="Copies a config to FOLDER/GROUP/NAME.yaml, which --config-dir FOLDER offers as GROUP=NAME.",
        epilog=f"example: {PROGRAM} config cp pipeline/sdxl mine/pipeline/my_sdxl.yaml",
    )
    cp.add_argument("config", metavar="GROUP/CHOICE", help="as ls lists them, such as pipeline/sdxl")
    cp.add_argument("target", type=Path, metavar="FOLDER/GROUP/NAME.yaml")
    cp.set_defaults(run=_cp)
    run_command(parser, arguments)


def _groups() -> list[str]:
    folders = (str(path.relative_to(CONF)) for path in CONF.rglob("*") if path.is_dir())
    return sorted(folder for folder in folders if choices(folder))


def _ls(options: argparse.Namespace) -> None:
    if options.group is None:
        for group in _groups():
            print(f"{group}: {', '.join(choices(group))}")
        return
    if options.group not in _groups():
        raise UserError(f"no group {options.group}: there are {', '.join(_groups())}")
    width = max(map(len, choices(options.group)))
    for choice in choices(options.group):
        print(f"{choice:{width}}  {_about(CONF / options.group / f'{choice}.yaml')}".rstrip())


def _about(file: Path) -> str:
    """The first sentence of a config's own comment."""
    lines = [line for line in file.read_text("utf-8").splitlines() if line != "# @package _global_"]
    text = " ".join(line.removeprefix("# ") for line in takewhile(lambda line: line.startswith("# "), lines))
    return re.split(r"(?<=[\w)])\.\s", f"{text} ")[0].strip()


def _cp(options: argparse.Namespace) -> None:
    known = [f"{group}/{choice}" for group in _groups() for choice in choices(group)]
    name, target = options.config.removesuffix(".yaml"), options.target
    if name not in known:
        found = get_close_matches(name, known, n=1)
        near = f"did you mean {found[0]}?" if found else f"`{PROGRAM} config ls` lists them"
        raise UserError(f"no config {options.config}: {near}")
    group, _, _ = name.rpartition("/")
    folder = next((parent for parent in target.absolute().parents if str(parent).endswith(f"/{group}")), None)
    if target.suffix != ".yaml" or folder != target.absolute().parent:
        raise UserError(f"{target} must be FOLDER/{group}/NAME.yaml, where --config-dir FOLDER finds it")
    if target.exists():
        raise UserError(f"{target} exists: choose another name, or delete it first")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(CONF / f"{name}.yaml", target)
    root = target.parents[group.count("/") + 1]
    print(f"wrote {target}; use it with --config-dir {root} {group}={target.stem}")
