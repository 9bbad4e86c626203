"""What `hydra.main` does with a parsed command line, without its error handling.

`hydra.main` reads `sys.argv` itself and prints errors in many lines; the functions it calls are private. Only this
module uses Hydra's private names: pyproject.toml bounds Hydra's version, and tests/cli/test_hydra_app.py uses each.
"""

from argparse import Namespace
from pathlib import Path

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra._internal.utils import get_args_parser as parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig

from golden_noise.cli.conf import CONF
from golden_noise.errors import UserError


class App:
    """A job's Hydra application, within a `with` block.

    Args:
        job: which of `conf/JOB.yaml`.
        args: the parsed command line, with overrides from `arguments.prepare`.
    """

    def __init__(self, job: str, args: Namespace):
        self.job, self.args = job, args
        version.setbase("1.3")
        path = create_config_search_path(f"file://{CONF}")
        if args.config_dir is not None:
            folder = Path(args.config_dir).absolute()
            if not folder.is_dir():
                raise UserError(f"--config-dir {args.config_dir} is not a folder")
            path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
        self.hydra = Hydra.create_main_hydra2(job, path)

    def __enter__(self) -> "App":
        return self

    def __exit__(self, *_: object) -> None:
        GlobalHydra.instance().clear()

    def compose(self) -> DictConfig:
        """The composed config with Hydra's own part."""
        config = self.hydra.compose_config(self.job, self.args.overrides, RunMode.RUN)
        HydraConfig.instance().set_config(config)
        return config

    def show(self) -> None:
        """Show what one of Hydra's own options, such as `--info`, requests."""
        args, name = self.args, self.job
        if args.hydra_help:
            self.hydra.hydra_help(name, args_parser=parser(), args=args)
        elif args.cfg:
            self.hydra.show_cfg(name, args.overrides, args.cfg, args.package, args.resolve)
        elif args.info:
            self.hydra.show_info(args.info, name, args.overrides)
        else:
            self.hydra.shell_completion(name, args.overrides)

    def run(self, task: TaskFunction) -> None:
        """Run one job, or those of a multirun."""
        mode = self.hydra.get_mode(self.job, self.args.overrides)
        wanted = RunMode.MULTIRUN if self.args.multirun or mode == RunMode.MULTIRUN else RunMode.RUN
        overrides = [*self.args.overrides, *([] if mode == wanted else [f"hydra.mode={wanted.name}"])]
        (self.hydra.run if wanted == RunMode.RUN else self.hydra.multirun)(self.job, task, overrides)
