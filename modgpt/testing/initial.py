"""Initial weights."""

from __future__ import annotations

import torch
from torch import nn

from modgpt.model.init import Initializer
from modgpt.testing.build import Make


def check_initial_weights(make: Make, **sizes: int) -> None:
    """All that is drawn comes from the initializer, and with a residual_std of 0 a branch is silent."""
    drawn = []
    for seed in (0, 1):
        torch.manual_seed(seed)  # of what torch draws by itself
        module: nn.Module = make(**sizes)
        module.reset_parameters(Initializer(module, seed=0, std=0.02, residual_std=0.005))  # type: ignore[operator]
        drawn.append({name: p.detach().clone() for name, p in module.named_parameters()})
    for name in drawn[0]:
        assert torch.equal(drawn[0][name], drawn[1][name]), (
            f"{name} is not drawn by reset_parameters: its value depends on what was drawn before"
        )
