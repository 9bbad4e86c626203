"""Callbacks that save NPNets as folders and draw grids of sample images."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import make_image_grid
from diffusers.utils.pil_utils import numpy_to_pil
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from golden_noise.errors import UserError
from golden_noise.files import atomic_folder
from golden_noise.images import save_png
from golden_noise.invocation import command
from golden_noise.npnet import AnyNPNet
from golden_noise.tracking.loggers import run_loggers


class SaveNPNet(Callback):
    """Writes NPNets as diffusers folders when training ends: `last/` and, from the best checkpoint, `best/`.

    The trainer's (first) ModelCheckpoint decides which is the best; without validation it is the last. With a callback
    that averages weights, both hold averaged ones. If nothing was trained, nothing is written.

    Args:
        dirpath: folder to write `best/` and `last/` into.
    """

    def __init__(self, dirpath: str | Path):
        self.dirpath = Path(dirpath)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves on rank 0 while the others wait; averaged weights are in place by now."""
        tried: bool = trainer.fast_dev_run  # type: ignore[attr-defined]
        if trainer.is_global_zero and trainer.global_step and not tried:
            npnet: Any = pl_module.npnet
            _save(npnet, self.dirpath / "last")
            best_path = getattr(trainer.checkpoint_callback, "best_model_path", "")
            if best_path:
                last = {name: value.clone() for name, value in npnet.state_dict().items()}
                weights = torch.load(best_path, map_location="cpu", weights_only=True)["state_dict"].items()
                prefix = "npnet."
                npnet.load_state_dict({k.removeprefix(prefix): v for k, v in weights if k.startswith(prefix)})
                _save(npnet, self.dirpath / "best")
                npnet.load_state_dict(last)
            else:  # never validated: the last is the best that is known
                _save(npnet, self.dirpath / "best")
        trainer.strategy.barrier()


def _save(npnet: AnyNPNet, folder: Path) -> None:
    with atomic_folder(folder) as whole:
        npnet.save_pretrained(whole)


class CheckMonitor(Callback):
    """Refuses to train for a figure that the validation does not have, before the first step and not after an epoch."""

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at what the validation's trial logged.

        Raises:
            UserError: the figure is not there.
        """
        wanted = getattr(trainer.checkpoint_callback, "monitor", None)
        known = sorted(name for name in trainer.callback_metrics if name.startswith("val/"))
        if wanted is not None and wanted not in known:
            raise UserError(f"objective.monitor={wanted}: the validation has no such figure, only {', '.join(known)}")


class SampleGrid(Callback):
    """Draws a grid of images, one row per prompt, from standard (left) and golden noise (right).

    Written to `epoch=NNNN.png` and sent to every `RunLogger`. Rank 0 draws it during validation, with
    the validated weights (averaged ones included), and leaves the random state unchanged.

    Args:
        sample: called with an NPNet, or None for the standard noise; returns images (N, 3, H, W) in [0, 1]
            of the same prompts and seeds each time.
        dirpath: folder for the PNG files.
        every_n_epochs: draws in the validations of epochs 0, n, 2n, ...
    """

    def __init__(self, sample: Callable[[AnyNPNet | None], Tensor], dirpath: str | Path, every_n_epochs: int = 1):
        self.sample = sample
        self.dirpath = Path(dirpath)
        self.every_n_epochs = every_n_epochs
        self._standard: Tensor | None = None

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws at the first batch, when averaged weights are in place whatever the order of the callbacks."""
        first = batch_idx == 0 and dataloader_idx == 0 and not trainer.sanity_checking
        if not (first and trainer.is_global_zero and trainer.current_epoch % self.every_n_epochs == 0):
            return
        npnet: Any = pl_module.npnet
        with isolate_rng():
            if self._standard is None:
                self._standard = self.sample(None).float().cpu()
            golden = self.sample(npnet).float().cpu()
        pairs = torch.stack([self._standard, golden], dim=1).flatten(0, 1)
        if not pairs.isfinite().all():  # would be black; training does not need images
            print(
                f"note: no grid of samples, because images are not finite: see {command('generate')}", file=sys.stderr
            )
            return
        grid = make_image_grid(numpy_to_pil(pairs.permute(0, 2, 3, 1).numpy()), rows=len(golden), cols=2)
        self.dirpath.mkdir(parents=True, exist_ok=True)
        save_png(grid, self.dirpath / f"epoch={trainer.current_epoch:04d}.png")
        step = trainer.global_step - 1  # where Lightning puts the metrics of this validation
        for logger in run_loggers(trainer.loggers):
            logger.log_grid("samples", grid, step, "standard | golden")
