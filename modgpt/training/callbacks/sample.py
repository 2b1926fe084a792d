"""A sample of text at every validation."""

from __future__ import annotations

from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from modgpt.files import replaced
from modgpt.inference.samples import sample
from modgpt.training.lit_module import LitGPT


class Sample(Callback):
    """Writes generated text to `sample.txt` and to TensorBoard after each validation.

    The random numbers are always the same. They come from a generator of its own, so that sampling
    does not change the training.

    Args:
        length: characters.
        prompt: text to continue.
        temperature: as for `modgpt.generate`.
        seed: of the generator.
    """

    def __init__(
        self, length: int = 200, prompt: str = "", temperature: float = 0.8, seed: int = 1
    ) -> None:
        self.length, self.prompt = length, prompt
        self.temperature, self.seed = temperature, seed
        self.folder: str | None = None  # of the run, set before the training

    def on_validation_end(self, trainer: L.Trainer, pl_module: LitGPT) -> None:
        if not trainer.is_global_zero:
            return
        text = sample(
            pl_module.model,
            pl_module.data,
            self.prompt,
            max_new_tokens=self.length,
            temperature=self.temperature,
            seed=self.seed,
        )
        if self.folder is not None:
            with replaced(Path(self.folder) / "sample.txt") as beside:
                beside.write_text(text, encoding="utf-8")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                # Four spaces make it verbatim in TensorBoard's Markdown.
                verbatim = "".join(f"    {line}\n" for line in text.splitlines())
                logger.experiment.add_text("sample", verbatim, trainer.global_step)
