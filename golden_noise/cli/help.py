"""What `--help` prints: the groups and the settings of one job, with the comments of its config file."""

import re
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from golden_noise.cli.conf import CONF

INTERNAL = ("hydra", "paths")  # groups without a choice
#: Groups that a job has no use for: they are there for pipelines, presets and this machine's own settings.
UNUSED = {"collect": ("model", "trainer"), "evaluate": ("model", "trainer"), "generate": ("model", "trainer", "logger")}
ABOUT = ("job", "about", "example")  # settings that are there for the help itself


def job_help(_root_: DictConfig) -> str:
    """Choices of the job's groups, its own settings with their comments, and the settings of the chosen groups."""
    file = CONF / f"{_root_.job}.yaml"
    shown_apart = {*OmegaConf.load(file), *unused(file.stem), "hydra"}
    rest = OmegaConf.masked_copy(_root_, [str(name) for name in _root_ if name not in shown_apart])
    text = (
        f"Groups, chosen with GROUP=CHOICE:\n\n{_groups(file)}\n\n"
        f"Settings, changed with KEY=VALUE:\n\n{_settings(file)}\n\n"
        f"Settings of the chosen groups, changed with GROUP.KEY=VALUE:\n\n{OmegaConf.to_yaml(rest)}"
    )
    return text.replace("$", "$$")  # Hydra fills in what follows a single one


def _groups(file: Path) -> str:
    """The choices of every group in the file's defaults, a line each."""
    defaults = [entry for entry in OmegaConf.load(file).defaults if isinstance(entry, DictConfig)]
    names = {str(name).partition("@")[0] for entry in defaults for name in entry}
    groups = sorted(name for name in names if name not in (*INTERNAL, *unused(file.stem)) and (CONF / name).is_dir())
    return "\n".join(f"{group}: {', '.join(sorted(p.stem for p in (CONF / group).iterdir()))}" for group in groups)


def unused(job: str) -> tuple[str, ...]:
    """The groups that a job has for pipelines, presets and this machine's own settings only."""
    return UNUSED.get(job, ())


def _settings(file: Path) -> str:
    """The file's own settings as they stand there, without its first line, which says what the file is."""
    lines = file.read_text("utf-8").splitlines()[1:]
    shown = ((line, re.match(r"(\w+):|# ", line)) for line in lines)
    return "\n".join(line for line, match in shown if match and match[1] not in (*ABOUT, "defaults"))


OmegaConf.register_new_resolver("job_help", job_help, replace=True)
