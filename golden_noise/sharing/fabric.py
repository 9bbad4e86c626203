"""Several processes that share one job, started together or by repeating the command."""

import logging
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment
from omegaconf import DictConfig

from golden_noise.errors import UserError, first_line
from golden_noise.sharing.claims import Claims
from golden_noise.sharing.environments import environments
from golden_noise.sharing.processes import announcing_a_wait


def launch(config: DictConfig) -> Fabric:
    """Start as many processes as `config.fabric` says, or meet those that torchrun or SLURM started.

    Each of several gets a device of its own: `config.device`.

    Raises:
        UserError: the settings do not fit how this process was started.
    """
    if config.fabric.devices != 1 and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise UserError("several processes can share one job only: leave out -m or fabric.devices")
    for name in ("lightning.fabric", "lightning.pytorch"):  # they log at length how the processes met
        logging.getLogger(name).setLevel(logging.WARNING)
    alone = config.fabric.devices == config.fabric.num_nodes == 1  # whatever started this process
    try:
        fabric: Fabric = instantiate(config.fabric, plugins=[LightningEnvironment()] if alone else environments())
        with announcing_a_wait("fabric.devices=1 fabric.num_nodes=1"):
            fabric.launch()
    except (ValueError, InstantiationException) as error:
        reason = first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        raise UserError(
            f"fabric.devices={config.fabric.devices} and fabric.num_nodes={config.fabric.num_nodes} do not fit this "
            f"machine, or how this was started: {reason}"
        ) from error
    if fabric.world_size > 1:
        config.device = str(fabric.device)
    return fabric


def shared_batches(folder: Path, total: int, size: int, name: str = "batch") -> Iterator[range]:
    """All ranges of at most `size` out of `total` positions, each claimed in `folder` while it is worked on.

    Every process gets every range. Of one that another process has finished, everything exists by then: make only what
    is missing.

    Args:
        name: distinguishes works in one folder.
    """

    @cache  # printed once
    def waiting() -> None:
        print("other processes work on the rest: waiting for them", file=sys.stderr)

    with Claims(folder, name) as claims:
        for unit in claims.share(range(-(-total // size)), waiting=waiting):
            yield range(unit * size, min(total, (unit + 1) * size))
            claims.finish(unit)
        claims.sweep()
