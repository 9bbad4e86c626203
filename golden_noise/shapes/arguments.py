"""The command line of the miniature's own programs: KEY=VALUE, and --help."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


def read_arguments(about: str | None, defaults: Any, arguments: Sequence[str]) -> DictConfig:
    """The defaults with the arguments' values. `--help` prints `about` and the defaults; a mistake costs one line.

    Args:
        about: the program's docstring.
        defaults: a dict or DictConfig; other keys than its own are mistakes.
        arguments: such as `count=100` and `denoiser.steps=10`.
    """
    config = OmegaConf.create(defaults)
    if {"-h", "--help"} & {*arguments}:
        print(f"{about}\nSettings:\n\n{OmegaConf.to_yaml(config)}", end="")
        sys.exit(0)
    OmegaConf.set_struct(config, True)
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        if not equals or OmegaConf.select(config, key, default=...) is ...:
            near = get_close_matches(key, list(config), n=1)
            print(f"error: no setting {key}{f': did you mean {near[0]}?' if near else ''}; see --help", file=sys.stderr)
            sys.exit(2)
    try:
        merged = OmegaConf.merge(config, OmegaConf.from_cli(list(arguments)))
    except OmegaConfBaseException as error:
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        sys.exit(2)
    assert isinstance(merged, DictConfig)
    return merged
