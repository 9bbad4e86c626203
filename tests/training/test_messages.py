"""What Lightning says and a user of ours does not need to read."""

import logging
import warnings

from lightning import Trainer

from golden_noise.training.messages import without_advertising


def test_lightning_advertises_nothing_and_says_which_processor_it_uses(caplog, tmp_path, monkeypatch):
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", True)  # not so in older ones
    caplog.set_level("INFO", "lightning.pytorch")
    caplog.set_level("INFO", "lightning.pytorch.utilities.rank_zero")
    without_advertising()
    Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    assert [text for text in caplog.messages if "GPU available" in text]
    assert not [text for text in caplog.messages if "Tip" in text or "TPU" in text]


def test_warnings_that_no_user_can_act_on_are_dropped():
    with warnings.catch_warnings(record=True) as said:
        without_advertising()
        warnings.warn("`isinstance(treespec, LeafSpec)` is deprecated, use ...", stacklevel=1)
        warnings.warn("Checkpoint directory /x/checkpoints exists and is not empty.", stacklevel=1)
        warnings.warn("of use", stacklevel=1)
    assert [str(warning.message) for warning in said] == ["of use"]
