"""Mixture of experts: each token meets a few of many feed-forward layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modgpt.model.cost import Cost, count_parameters
from modgpt.model.ffn.base import DenseFeedForward, FeedForward, checked_hidden

EVEN = 64  # rows


class GroupedLinear(nn.Module):
    """E linear layers in one: row n of the input meets the weights of the expert that owns it.

    Args:
        in_features, out_features: widths; fastest as multiples of 8, for the grouped product wants rows
            of a multiple of 16 bytes and others are filled up with zeros for it.
        n_experts: E.
        bias: give each expert a bias.

    Shapes: x (N,in) sorted by expert, ends (E,) int32, where each expert's rows end -> (N,out).
    """

    stacked = True  # the first dimension of its parameters counts the experts

    def __init__(
        self, in_features: int, out_features: int, *, n_experts: int, bias: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_experts, out_features, in_features))
        self.bias = nn.Parameter(torch.empty(n_experts, out_features)) if bias else None

    @torch.compiler.disable  # the compiler believes that grouped_mm takes nothing but bf16
    def forward(self, x: Tensor, ends: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled(x.device.type):  # autocast does not know grouped_mm
            dtype = torch.get_autocast_dtype(x.device.type)
            x, weight = x.to(dtype), weight.to(dtype)
        missing_out, missing_in = (-size % 8 for size in weight.shape[1:])
        if missing_out or missing_in:
            x, weight = F.pad(x, (0, missing_in)), F.pad(weight, (0, missing_in, 0, missing_out))
        y = F.grouped_mm(x, weight.mT, offs=ends)[:, : self.weight.shape[1]]
        if bias is None:
            return y
        counts = ends.diff(prepend=ends.new_zeros(1))
        return y + bias.to(y.dtype).repeat_interleave(counts, dim=0, output_size=len(y))


def wants_even_groups(x: Tensor) -> bool:
    """Whether every expert's rows are filled up with zeros to a multiple of `EVEN`.

    In bf16 the CPU's library compiles a kernel for every new number of rows, and numbers of rows are new
    at every step: that takes most of the time, and hundreds of megabytes.
    """
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


class MixtureOfExperts(FeedForward):
    """y = Σ_{e in top-k} gₑ FFNₑ(x), g the router's softmax over the top-k, renormalised to 1.

    Token-choice routing without capacity: no token is dropped. Rows are sorted by expert and all experts
    computed by one grouped product per projection. Experts are narrow: their hidden width makes the
    *active* parameters match `ffn=standard` (8C²), router included, to the nearest multiple of 8.

    Two auxiliary losses, with f_e the share of assignments and p_e the mean router probability of
    expert e: the balance loss E·Σ fₑpₑ, 1 when uniform (Switch Transformer, Fedus et al. 2021, section
    2.2), and the router z-loss mean(logsumexp(logits)²) (ST-MoE, Zoph et al. 2022, section 3). Routing
    by renormalised top-2 as in Mixtral (Jiang et al. 2024, section 2.1).

    Args:
        expert: makes one expert, an ffn like any other.
        n_experts: E.
        top_k: experts per token.
        hidden: hidden width of an expert; None to match active parameters.
        balance_coef: weight of the balance loss.
        z_coef: weight of the router z-loss.

    Raises:
        ValueError: top_k is not in 1 … E, hidden < 1, or C is no multiple of 8.
    """

    def __init__(
        self,
        *,
        expert: Callable[..., DenseFeedForward],
        n_experts: int = 8,
        top_k: int = 2,
        hidden: int | None = None,
        balance_coef: float = 0.01,
        z_coef: float = 0.001,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        if n_experts < 1:
            raise ValueError(f"ffn.n_experts must be at least 1, got {n_experts}")
        if not 1 <= top_k <= n_experts:
            raise ValueError(f"ffn.top_k={top_k} must lie between 1 and ffn.n_experts={n_experts}")
        if self.d_model % 8:
            raise ValueError(
                f"ffn=moe needs a width that is a multiple of 8, got model.d_model={self.d_model}"
            )
        self.n_experts, self.top_k = n_experts, top_k
        self.balance_coef, self.z_coef = balance_coef, z_coef
        stacked = partial(
            expert,
            d_model=self.d_model,
            layer=self.layer,
            linear=partial(GroupedLinear, n_experts=n_experts),
        )
        if hidden is None:
            hidden = self.matched_hidden(stacked)
        self.router = nn.Linear(self.d_model, n_experts, bias=False)
        self.hidden = checked_hidden(hidden)
        self.experts = stacked(hidden=self.hidden)

    def matched_hidden(self, stacked: Callable[..., DenseFeedForward]) -> int:
        """The expert width at which active parameters come closest to 8C²."""
        with torch.device("meta"):  # shapes without memory: what does one unit of hidden width cost?
            small, large = (count_parameters(stacked(hidden=h)) for h in (8, 16))
        per_unit = (large - small) / 8 / self.n_experts * self.top_k
        budget = 8 * self.d_model**2 - self.d_model * self.n_experts
        return max(8, round(budget / per_unit / 8) * 8)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        tokens = x.flatten(0, -2)  # (N,C)
        gates, chosen, aux = self.route(tokens)  # (N,k), (N,k)
        y = F.dropout(self.dispatch(tokens, gates, chosen), self.dropout, self.training)
        return y.view_as(x), aux

    def route(self, tokens: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """tokens (N,C) -> gates (N,k), experts (N,k), and the auxiliary losses with the expert load."""
        # The router in fp32: a rounding error in bf16 sends a token to another expert.
        with torch.autocast(tokens.device.type, enabled=False):
            logits = F.linear(tokens.float(), self.router.weight)  # (N,E)
        probabilities = logits.softmax(-1)
        gates, chosen = probabilities.topk(self.top_k, dim=-1)
        gates = gates / gates.sum(-1, keepdim=True)
        load = F.one_hot(chosen, self.n_experts).sum((0, 1)) / chosen.numel()  # f (E,)
        balance = self.n_experts * (load * probabilities.mean(0)).sum()
        z = logits.logsumexp(-1).square().mean()
        loss = self.balance_coef * balance + self.z_coef * z
        aux = {"loss": loss, "balance_loss": balance, "router_z_loss": z, "expert_load": load}
        return gates, chosen, aux

    def dispatch(self, tokens: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        """Each token through its experts, weighted by its gates: (N,C) -> (N,C)."""
        owner, order = chosen.flatten().sort(stable=True)  # (N·k,) rows of one expert side by side
        row = order // self.top_k  # the token behind each row
        # Not bincount, which makes the host wait for a GPU.
        experts = torch.arange(self.n_experts, device=owner.device)
        ends = torch.searchsorted(owner, experts, right=True)  # (E,)
        counts = ends.diff(prepend=ends.new_zeros(1))
        if wants_even_groups(tokens):
            room = counts.add(EVEN - 1).div(EVEN, rounding_mode="floor") * EVEN
            ends_even = room.cumsum(0)
            moved = (ends_even - room) - (ends - counts)  # how far each expert's rows make way
            place = torch.arange(len(owner), device=owner.device) + moved[owner]
            rows = tokens.index_select(0, row)
            x = tokens.new_zeros(int(ends_even[-1]), tokens.shape[1]).index_copy(0, place, rows)
            y = self.experts.transform(x, ends_even.int()).index_select(0, place)
        else:
            y = self.experts.transform(tokens.index_select(0, row), ends.int())
        y = y * gates.flatten().index_select(0, order).unsqueeze(-1).type_as(y)
        return torch.zeros_like(tokens, dtype=y.dtype).index_add(0, row, y)

    def cost(self, length: int) -> Cost:
        """Declared cost: of the experts' weights a token meets the share k/E."""
        router, experts = self.router.weight.numel(), self.experts.cost(length)
        share = self.top_k / self.n_experts
        return Cost(
            parameters=router + experts.parameters,
            active_parameters=router + round(experts.parameters * share),
            flops=2 * router + experts.flops * share,
        )

    def reset_parameters(self, std: float, residual_std: float) -> None:
        nn.init.normal_(self.router.weight, std=std)
        self.experts.reset_parameters(std, residual_std)
