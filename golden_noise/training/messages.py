"""Which of Lightning's messages are for its users."""

import logging
import warnings

_NO_NEWS = ("💡 Tip", "TPU available", "Loading `train_dataloader`", "`weights_only` was not set")


def without_advertising() -> None:
    """Drop what Lightning says about products, about TPUs, about code of its own, and what is meant to be so."""
    for name in ("utilities.rank_zero", "trainer.connectors.checkpoint_connector"):
        logging.getLogger(f"lightning.pytorch.{name}").addFilter(_is_news)
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")  # of a resume


def _is_news(message: logging.LogRecord) -> bool:
    return not message.getMessage().startswith(_NO_NEWS)
