"""What the config files can ask for as `${NAME:...}`."""

import os
from pathlib import Path
from typing import Any

from omegaconf import ListConfig, OmegaConf

from golden_noise.sharing.processes import machines, per_machine

OmegaConf.register_new_resolver("run_group", lambda name: name.rpartition("/")[0] or name, replace=True)
OmegaConf.register_new_resolver("home", lambda path: str(Path(path).expanduser()), replace=True)
OmegaConf.register_new_resolver(
    "processes", lambda chosen, default: per_machine(default) if chosen is None else chosen, replace=True
)
OmegaConf.register_new_resolver("machines", machines, replace=True)
OmegaConf.register_new_resolver(
    "wandb_tags",
    lambda tag: ListConfig(list(dict.fromkeys([tag, *filter(None, os.environ.get("WANDB_TAGS", "").split(","))]))),
    replace=True,
)
OmegaConf.register_new_resolver(
    "use_of", lambda job: "learning" if job in ("collect", "train") else "evaluation", replace=True
)
OmegaConf.register_new_resolver("eighth", lambda pixels: pixels // 8, replace=True)


def accelerator(device: Any) -> str:
    """Lightning's word for a device."""
    kind = str(device).split(":")[0]
    return {"cuda": "gpu"}.get(kind, kind)


OmegaConf.register_new_resolver("accelerator", accelerator, replace=True)
