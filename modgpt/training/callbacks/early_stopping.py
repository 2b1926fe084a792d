"""Early stopping: `callbacks=early_stopping`."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping as LightningEarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason


class EarlyStopping(LightningEarlyStopping):
    """Lightning's early stopping, which a resumed run goes on with exactly.

    A checkpoint keeps the best value and the validations since then. Lightning's also keeps the
    patience, and would ignore another one that a resumed run is given.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict | {"patience": self.patience})

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.wait_count >= self.patience:  # stopped already, and killed before its record said so
            trainer.should_stop = True
        else:
            self.stopping_reason = EarlyStoppingReason.NOT_STOPPED
