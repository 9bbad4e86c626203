"""Resolvers of the config files: `${NAME:...}`."""

import os
from collections.abc import Callable
from pathlib import Path

from omegaconf import ListConfig, OmegaConf

from golden_noise.sharing.processes import machines, per_machine


def wandb_tags(tag: str) -> ListConfig:
    """A tag and those of the environment, each once."""
    return ListConfig(list(dict.fromkeys([tag, *filter(None, os.environ.get("WANDB_TAGS", "").split(","))])))


RESOLVERS: dict[str, Callable] = {
    "accelerator": lambda device: str(device).split(":")[0].replace("cuda", "gpu"),  # Lightning's word
    "eighth": lambda pixels: pixels // 8,
    "home": lambda path: str(Path(path).expanduser()),
    "machines": machines,
    "processes": lambda chosen, default: per_machine(default) if chosen is None else chosen,
    "run_group": lambda name: name.rpartition("/")[0] or name,
    "times": lambda factor, number: factor * number,
    "use_of": lambda job: "learning" if job in ("collect", "train") else "evaluation",
    "wandb_tags": wandb_tags,
}
for name, resolver in RESOLVERS.items():
    OmegaConf.register_new_resolver(name, resolver, replace=True)
