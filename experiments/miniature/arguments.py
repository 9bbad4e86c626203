"""The command line of the miniature's own programs: KEY=VALUE, and --help."""

import sys
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError


def read_arguments(about: str | None, defaults: Any, arguments: Sequence[str]) -> DictConfig:
    """The defaults with the arguments' values. `--help` prints `about` and the defaults; a mistake costs one line.

    Args:
        about: the program's docstring.
        defaults: a dict or DictConfig; other keys than its own are mistakes.
        arguments: such as `count=100` and `denoiser.steps=10`.
    """
    config: Any = OmegaConf.create(defaults)
    if {"-h", "--help"} & {*arguments}:
        print(f"{about}\nSettings:\n\n{OmegaConf.to_yaml(config)}", end="")
        sys.exit()
    OmegaConf.set_struct(config, True)
    try:
        if bad := [argument for argument in arguments if "=" not in argument]:
            raise ValueError(f"{bad[0]} is not KEY=VALUE")
        config.merge_with(OmegaConf.from_cli(list(arguments)))
    except ConfigKeyError as error:
        sys.exit(f"error: no setting {error.full_key}; see --help")
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        sys.exit(f"error: {str(error).splitlines()[0]}; see --help")
    return config
