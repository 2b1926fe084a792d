"""A sample of what a model has learned, for a person to read."""

from __future__ import annotations

from typing import Any

import torch

from modgpt.data.base import DataModule
from modgpt.data.tasks.base import TaskDataModule
from modgpt.inference.generation import generate
from modgpt.model.gpt import GPT


def sample(model: GPT, data: DataModule, prompt: str = "", **options: Any) -> str:
    """Text that the model continues; of a task, one sequence with the model's answers.

    A continuation would show nothing of a task: the model has learned to answer, not to write sequences.

    Args:
        model: the GPT.
        data: what it was trained on, loaded.
        prompt: text to continue.
        options: of `generate`.
    """
    if not isinstance(data, TaskDataModule):
        return generate(model, data.tokenizer, prompt, **options)
    inputs, targets = data.example()
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        device = model.embedding.weight.device
        answers = model(inputs[None].to(device))[0].argmax(-1).cpu()
    model.train(was_training)
    return data.compared(inputs, targets, answers)
