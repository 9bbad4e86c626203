"""Checkpoints of a training: written whole or not at all, every few minutes, and checked before they are used."""

import signal
import threading
import time
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException

from golden_noise.errors import UserError
from golden_noise.files import atomic_file, is_machines
from golden_noise.pairs.loader import NoisePairLoader
from golden_noise.pairs.streaming import StreamingDataModule

LAST = "last.ckpt"
LOOK = 20  # batches between two looks at the clock where the ranks have to agree on it


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that replace the old ones only once they are whole and on the disk.

    Lightning writes to the folder for temporary files, and copies from there if that is another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes with `torch.save`."""
        assert storage_options is None, "no storage options are known"
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(target) as file:
            torch.save(checkpoint, file)


class SaveLast(Checkpoint):
    """Writes `last.ckpt`, from which a killed training resumes, at the end of every epoch and every few minutes.

    Also when SIGTERM ends the training, as at the end of a cluster's time limit. Within an epoch it is written only
    right after an optimizer step: accumulated gradients are not saved.

    Args:
        dirpath: folder of the checkpoints.
        minutes: between two checkpoints within an epoch; None for none.
    """

    def __init__(self, dirpath: str | Path, minutes: float | None = 5):
        self.path = Path(dirpath) / LAST
        self.minutes = minutes
        self._saved_at = 0.0
        self._position: dict[str, int] | None = None
        self._terminated = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock, and moves the loader to the checkpoint's position.

        Lightning does not, if `estimated_stepping_batches` has built the loader before the checkpoint is read.
        """
        loader = trainer.train_dataloader
        if self._position is not None and isinstance(loader, NoisePairLoader):
            loader.load_state_dict(self._position)
        self._position = None
        self._saved_at = time.monotonic()
        self._terminated = False
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            # Lightning's handler broadcasts at once on every rank that has the signal, and at the end of SLURM's time
            # all have: one that waits for the others' gradients would wait for ever. Lightning removes ours at the end.
            signal.signal(signal.SIGTERM, self._note if trainer.is_global_zero else signal.SIG_IGN)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves if it is time or SIGTERM came; after the last batch the epoch's end saves, including its validation."""
        waiting = (batch_idx + 1) % trainer.accumulate_grad_batches != 0
        if waiting or trainer.is_last_batch:
            return
        if self._ends(trainer):
            self._save(trainer)
            raise SIGTERMException
        if self.minutes is None or (trainer.world_size > 1 and batch_idx % LOOK):
            return
        due = time.monotonic() - self._saved_at >= 60 * self.minutes
        if trainer.strategy.broadcast(due):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves after the callbacks that keep the best, whose state is part of it."""
        self._save(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adapts a checkpoint to another number of ranks and to a moved run folder."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, StreamingDataModule):
            self._position = fit_position(checkpoint["loops"]["fit_loop"], data.train_dataloader())
        for callback in trainer.checkpoint_callbacks:
            state = checkpoint.get("callbacks", {}).get(callback.state_key)
            if isinstance(callback, ModelCheckpoint) and state:
                move_paths(state, str(callback.dirpath))

    def _note(self, *_: object) -> None:
        self._terminated = True

    def _ends(self, trainer: Trainer) -> bool:
        """Whether SIGTERM ends the training, on all ranks after the same step: the first rank says."""
        if trainer.world_size == 1:
            return trainer.received_sigterm
        ends = torch.tensor(int(self._terminated), device=trainer.strategy.root_device)
        torch.distributed.broadcast(ends, src=0)
        return bool(ends)

    def _save(self, trainer: Trainer) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self.path)
        self._saved_at = time.monotonic()


def fit_position(loop: dict[str, Any], loader: NoisePairLoader) -> dict[str, int] | None:
    """Make Lightning's count of batches agree with the loader's count of pairs on another number of ranks.

    Args:
        loop: the stored state of the fit loop, changed in place.
        loader: of the resumed training.

    Returns:
        The loader's position, if it was stored.
    """
    progress, states = loop["epoch_loop.batch_progress"], loop["state_dict"].get("combined_loader")
    if not states or "pairs" not in states[0]:
        return None
    state = states[0]
    loader.load_state_dict(state)
    over = progress["is_last_batch"] or loader.epoch > state["epoch"]  # too few pairs are left for a step of all ranks
    if over:
        # With limit_train_batches an epoch ends before the loader does.
        states[0] = {"epoch": state["epoch"] + (state["pairs"] > 0), "pairs": 0}
    before = progress["current"]["ready"]
    ready = max(before, len(loader)) if over else len(loader) - loader.left
    progress["is_last_batch"] = over
    progress["current"] = {name: count + ready - before for name, count in progress["current"].items()}
    return states[0]


def move_paths(state: dict[str, Any], folder: str) -> None:
    """Point the state of a ModelCheckpoint to the folder in which its files are now."""
    state["dirpath"] = folder
    for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
        state[name] = _moved(state.get(name), folder)
    state["best_k_models"] = {_moved(path, folder): score for path, score in state.get("best_k_models", {}).items()}


def _moved(path: str | None, folder: str) -> str:
    return str(Path(folder) / Path(path).name) if path else ""


def resumable(
    folder: Path, module: LightningModule, max_epochs: int | None, max_steps: int | None = None
) -> Path | None:
    """The checkpoint from which a training resumes; None if there is none.

    Raises:
        UserError: it is damaged, of another network, or has trained more epochs or steps than the limits, or the best
            checkpoint is lost.
    """
    path = folder / LAST
    if not path.exists():
        return None
    best = folder / "best.ckpt"
    instead = f"put {best} in its place to resume from there, or delete" if best.is_file() else "delete"
    checkpoint = load(path, f"{instead} {folder.parent} to start again")
    have = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
    want = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    if have != want:
        name = next(name for name in [*want, *have] if have.get(name) != want.get(name))
        raise UserError(
            f"{path} is of another network ({name} has shape {have.get(name)}, not {want.get(name)}): "
            f"{instead} {folder.parent} to start again"
        )
    epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    limits = {"epochs": (epochs, max_epochs), "steps": (checkpoint.get("global_step", 0), max_steps)}
    for unit, (done, limit) in limits.items():
        if limit is not None and 0 <= limit < done:
            raise UserError(
                f"{folder.parent} has trained {done} {unit}, more than trainer.max_{unit}={limit}: "
                "raise it, or give another name=NAME"
            )
    for state in checkpoint.get("callbacks", {}).values():
        if isinstance(state, dict) and state.get("best_model_path"):
            load(folder / Path(state["best_model_path"]).name, f"delete {folder.parent} to start again")
    return path


def load(path: Path, advice: str) -> dict[str, Any]:
    """The content of a checkpoint, whose tensors are not read into memory."""
    try:
        with ZipFile(path) as file:  # as torch.save writes it, with checksums that torch.load does not look at
            damaged = file.testzip()
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if damaged is None and {"state_dict", "loops", "optimizer_states"} <= checkpoint.keys():
            return checkpoint
    except Exception as error:  # damaged and foreign files raise anything
        if is_machines(error):
            raise
    raise UserError(f"{path} is damaged or not a checkpoint: {advice}")
