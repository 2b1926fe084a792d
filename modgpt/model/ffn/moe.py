"""Mixture of experts: each token meets a few of many feed-forward layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modgpt.kernels import even_groups, grouped_linear
from modgpt.model.cost import Cost, count_parameters
from modgpt.model.definition import bound, definition_of
from modgpt.model.ffn.base import DenseFeedForward, FeedForward, checked_hidden
from modgpt.model.init import Initializer
from modgpt.model.precision import wide


def mixture_of_experts(
    x: Tensor,
    *,
    router: nn.Linear,
    each_expert: Sequence[Callable[[Tensor], Tensor]],
    shared: Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]] | None,
    top_k: int,
    n_groups: int,
    top_groups: int,
    scores: str,
    norm_topk: bool,
    gate_scale: float,
    balance_bias: Tensor | None,
    balance_coef: float,
    z_coef: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """y = Σ_{e in top-k} gₑ FFNₑ(x), token by token: x (…,C) -> (…,C), auxiliary losses."""
    n_experts = len(each_expert)
    of_group = n_experts // n_groups
    outputs, probabilities, z, load = [], [], [], torch.zeros(n_experts, dtype=x.dtype)
    for token in x.flatten(0, -2):
        logits = router(token)
        s = torch.sigmoid(logits) if scores == "sigmoid" else logits.softmax(-1)
        # A bias decides who is chosen, and has no part in the gates.
        biased = s if balance_bias is None else s + balance_bias
        # A group is worth what its two best experts are together.
        two_best = (group.topk(min(2, of_group)).values for group in biased.split(of_group))
        worth = torch.stack([values.sum() for values in two_best])
        best = worth.topk(top_groups).indices.tolist()
        hidden = [e // of_group not in best for e in range(n_experts)]
        chosen = biased.masked_fill(torch.tensor(hidden), float("-inf")).topk(top_k).indices.tolist()
        total = sum(s[e] for e in chosen) if norm_topk else 1.0
        y = sum(gate_scale * s[e] / total * each_expert[e](token) for e in chosen)
        outputs.append(y if shared is None else y + shared(token)[0])
        probabilities.append(s / s.sum())
        z.append(logits.logsumexp(-1) ** 2)
        load[chosen] += 1
    load = load / load.sum()  # f, the share of each expert
    balance = n_experts * (load * torch.stack(probabilities).mean(0)).sum()  # E·Σ fₑpₑ
    z_loss = torch.stack(z).mean()
    loss = balance_coef * balance + z_coef * z_loss
    aux = {"loss": loss, "balance_loss": balance, "router_z_loss": z_loss, "expert_load": load}
    return torch.stack(outputs).view_as(x), aux


def linear_by_group(x: Tensor, ends: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Each group of rows times its own weights: x (N,in), groups that end at `ends` (E,) -> (N,out)."""
    counts = ends.diff(prepend=ends.new_zeros(1)).tolist()
    biases = [None] * len(counts) if bias is None else bias.unbind()
    groups = zip(x.split(counts), weight.unbind(), biases, strict=True)
    return torch.cat([F.linear(rows, w, b) for rows, w, b in groups])


class GroupedLinear(nn.Module):
    """E linear layers in one: row n of the input meets the weights of the expert that owns it.

    Args:
        in_features, out_features: widths; fastest as multiples of 8.
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

    def forward(self, x: Tensor, ends: Tensor) -> Tensor:
        kernel = grouped_linear.grouped_linear if grouped_linear.is_possible(x) else linear_by_group
        return kernel(x, ends, self.weight, self.bias)

    def of_expert(self, e: int) -> Callable[[Tensor], Tensor]:
        """The linear layer of one expert."""
        return partial(F.linear, weight=self.weight[e], bias=None if self.bias is None else self.bias[e])


class MixtureOfExperts(FeedForward):
    """y = Σ_{e in top-k} gₑ FFNₑ(x), g the router's scores of the top-k, renormalised to 1.

    Token-choice routing without capacity: no token is dropped. Rows are sorted by expert and all experts
    computed by one grouped product per projection. Experts are narrow: their hidden width makes the
    *active* parameters match `ffn=standard` (8C²), router included, to the nearest multiple of 8.

    Two auxiliary losses, with f_e the share of assignments and p_e the mean router probability of
    expert e: the balance loss E·Σ fₑpₑ, 1 when uniform (Switch Transformer, Fedus et al. 2021, section
    2.2), and the router z-loss mean(logsumexp(logits)²) (ST-MoE, Zoph et al. 2022, section 3). Routing
    by renormalised top-2 as in Mixtral (Jiang et al. 2024, section 2.1).

    With `bias_rate` the experts are balanced without a loss (Wang et al. 2024, "Auxiliary-Loss-Free Load
    Balancing"; DeepSeek-V3, 2024, section 2.1.2): each has a bias, which is added to its score where the
    top-k is chosen and nowhere else. After each step the bias of an expert with less than the mean load
    grows by `bias_rate`, and that of one with more shrinks by it.

    Args:
        expert: makes one expert, an ffn like any other.
        n_experts: E.
        top_k: experts per token.
        hidden: hidden width of an expert; None to match active parameters.
        n_groups: G groups of E/G neighbouring experts, as those on one machine of several. A token
            chooses groups first, then experts of these alone (DeepSeek-V3, section 2.1.2). A group is
            worth what its two best experts are together, biases included. 1 for no groups.
        top_groups: groups per token.
        n_shared: experts that every token meets besides, as one of n_shared times the width
            (DeepSeekMoE, Dai et al. 2024, section 3.2); 0 for none.
        scores: of the router: softmax, or sigmoid (DeepSeek-V3).
        norm_topk: divide the gates by their sum.
        gate_scale: factor of all gates.
        choice: token, who chooses whom. `expert` is refused.
        balance_coef: weight of the balance loss.
        z_coef: weight of the router z-loss.
        bias_rate: what a bias changes by after each step; 0 for no biases.

    Raises:
        ValueError: top_k is not in 1 … E, G does not divide E, top_groups is not in 1 … G, a token's
            groups have fewer than top_k experts, hidden < 1, n_shared < 0, bias_rate < 0,
            gate_scale ≤ 0, C is no multiple of 8, unknown scores, or a choice by the experts, which
            looks into the future.
    """

    definition = staticmethod(mixture_of_experts)
    balance_bias: Tensor | None
    # The large coefficients let the gradients of the auxiliary losses show.
    variants = (
        {"n_experts": 4},
        {"balance_coef": 0.7, "z_coef": 0.3},
        {"n_experts": 5, "top_k": 1, "balance_coef": 0.7, "z_coef": 0.3},
        {"n_experts": 3, "top_k": 3, "hidden": 16},
        {"n_experts": 1, "top_k": 1},
        {"hidden": 11},  # no whole rows: filled up for the grouped product
        {"n_experts": 4, "norm_topk": False, "n_shared": 2, "gate_scale": 2.5},
        {"n_experts": 6, "top_k": 3, "scores": "sigmoid", "bias_rate": 0.01, "balance_coef": 0.7},
        {"n_experts": 12, "top_k": 3, "n_groups": 4, "top_groups": 2, "scores": "sigmoid"},
    )

    def __init__(
        self,
        *,
        expert: Callable[..., DenseFeedForward],
        n_experts: int = 8,
        top_k: int = 2,
        hidden: int | None = None,
        n_groups: int = 1,
        top_groups: int = 1,
        n_shared: int = 0,
        scores: Literal["softmax", "sigmoid"] = "softmax",
        norm_topk: bool = True,
        gate_scale: float = 1.0,
        choice: Literal["token"] = "token",
        balance_coef: float = 0.01,
        z_coef: float = 0.001,
        bias_rate: float = 0.0,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        if n_experts < 1:
            raise ValueError(f"ffn.n_experts must be at least 1, got {n_experts}")
        if not 1 <= top_k <= n_experts:
            raise ValueError(f"ffn.top_k={top_k} must lie between 1 and ffn.n_experts={n_experts}")
        if n_groups < 1 or n_experts % n_groups:
            raise ValueError(f"ffn.n_groups={n_groups} must divide ffn.n_experts={n_experts}")
        if not 1 <= top_groups <= n_groups:
            raise ValueError(
                f"ffn.top_groups={top_groups} must lie between 1 and ffn.n_groups={n_groups}"
            )
        reached = top_groups * (n_experts // n_groups)
        if top_k > reached:
            raise ValueError(
                f"ffn.top_k={top_k} is more than the {reached} experts in "
                f"ffn.top_groups={top_groups} groups"
            )
        if self.d_model % 8:
            raise ValueError(
                f"ffn=moe needs a width that is a multiple of 8, got model.d_model={self.d_model}"
            )
        for name, value in {"n_shared": n_shared, "bias_rate": bias_rate}.items():
            if not value >= 0:  # also NaN
                raise ValueError(f"ffn.{name} must not be negative, got {value}")
        if not gate_scale > 0:
            raise ValueError(f"ffn.gate_scale must be positive, got {gate_scale}")
        if scores not in ("softmax", "sigmoid"):
            raise ValueError(f"ffn.scores must be softmax or sigmoid, got {scores!r}")
        if choice != "token":
            raise ValueError(
                f"ffn.choice must be token, got {choice!r}: an expert that chooses among the tokens of "
                "a sequence sees later ones when it decides about earlier ones"
            )
        self.n_experts, self.top_k, self.n_shared = n_experts, top_k, n_shared
        self.n_groups, self.top_groups = n_groups, top_groups
        self.scores, self.norm_topk, self.gate_scale = scores, norm_topk, gate_scale
        self.balance_coef, self.z_coef, self.bias_rate = balance_coef, z_coef, bias_rate
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
        width = n_shared * self.hidden
        self.shared = expert(d_model=self.d_model, layer=self.layer, hidden=width) if n_shared else None
        self.register_buffer("balance_bias", torch.zeros(n_experts) if bias_rate else None)
        self.since_step: Tensor | None = None  # assignments (E,) since the last optimizer step

    def matched_hidden(self, stacked: Callable[..., DenseFeedForward]) -> int:
        """The expert width at which active parameters come closest to 8C²."""
        with torch.device("meta"):  # shapes without memory: what does one unit of hidden width cost?
            small, large = (count_parameters(stacked(hidden=h)) for h in (8, 16))
        per_unit = (large - small) / 8 / self.n_experts * (self.top_k + self.n_shared)
        budget = 8 * self.d_model**2 - self.d_model * self.n_experts
        return max(8, round(budget / per_unit / 8) * 8)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        tokens = x.flatten(0, -2)  # (N,C)
        gates, chosen, aux = self.route(tokens)  # (N,k), (N,k)
        y = self.dispatch(tokens, gates, chosen)
        if self.shared is not None:
            y = y + self.shared.transform(tokens)
        return F.dropout(y, self.dropout, self.training).view_as(x), aux

    def route(self, tokens: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """tokens (N,C) -> gates (N,k), experts (N,k), and the auxiliary losses with the expert load."""
        # The router in fp32: a rounding error in bf16 sends a token to another expert.
        with torch.autocast(tokens.device.type, enabled=False):
            logits = F.linear(wide(tokens), wide(self.router.weight))  # (N,E)
        scores = probabilities = logits.softmax(-1)
        if self.scores == "sigmoid":
            scores = logits.sigmoid()
            probabilities = scores / scores.sum(-1, keepdim=True)
        biased = scores if self.balance_bias is None else scores + self.balance_bias
        if self.n_groups > 1:
            biased = self.of_best_groups(biased)
        chosen = biased.topk(self.top_k, dim=-1).indices
        gates = scores.gather(-1, chosen)
        if self.norm_topk:
            gates = gates / gates.sum(-1, keepdim=True)
        gates = gates * self.gate_scale
        assigned = F.one_hot(chosen, self.n_experts).sum((0, 1))
        # Activation checkpointing counts everything twice, which leaves the sign of a difference alone.
        if self.balance_bias is not None and self.training:
            self.since_step = assigned if self.since_step is None else self.since_step + assigned
        load = assigned.type_as(logits) / chosen.numel()  # f (E,)
        balance = self.n_experts * (load * probabilities.mean(0)).sum()
        z = logits.logsumexp(-1).square().mean()
        loss = self.balance_coef * balance + self.z_coef * z
        aux = {"loss": loss, "balance_loss": balance, "router_z_loss": z, "expert_load": load}
        return gates, chosen, aux

    def of_best_groups(self, scores: Tensor) -> Tensor:
        """Scores (N,E), −∞ outside each token's best groups."""
        groups = scores.unflatten(-1, (self.n_groups, -1))  # (N,G,E/G)
        worth = groups.topk(min(2, groups.shape[-1]), dim=-1).values.sum(-1)  # (N,G)
        best = worth.topk(self.top_groups, dim=-1).indices
        others = torch.ones_like(worth, dtype=torch.bool).scatter(-1, best, False)
        return groups.masked_fill(others.unsqueeze(-1), float("-inf")).flatten(-2)

    def after_step(self) -> None:
        """Move each bias by `bias_rate` toward an even load, over the tokens of all processes."""
        if self.balance_bias is None or self.since_step is None:
            return
        assigned, self.since_step = self.since_step.float(), None
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(assigned)
        self.balance_bias += self.bias_rate * torch.sign(assigned.mean() - assigned)

    def dispatch(self, tokens: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
        """Each token through its experts, weighted by its gates: (N,C) -> (N,C)."""
        owner, order = chosen.flatten().sort(stable=True)  # (N·k,) rows of one expert side by side
        row = order // self.top_k  # the token behind each row
        # Not bincount, which makes the host wait for a GPU.
        experts = torch.arange(self.n_experts, device=owner.device)
        ends = torch.searchsorted(owner, experts, right=True).int()  # (E,)
        rows = tokens.index_select(0, row)
        if even_groups.is_faster(rows):
            y = even_groups.in_even_groups(self.experts.transform, rows, ends)
        else:
            y = self.experts.transform(rows, ends)
        y = y * gates.flatten().index_select(0, order).unsqueeze(-1).type_as(y)
        return torch.zeros_like(tokens, dtype=y.dtype).index_add(0, row, y)

    @property
    def each_expert(self) -> list[Callable[[Tensor], Tensor]]:
        """Every expert by its definition, with its own slice of the weights."""
        projections = {n: p for n, p in self.experts.named_children() if isinstance(p, GroupedLinear)}
        return [
            bound(
                definition_of(self.experts),
                self.experts,
                **{name: projection.of_expert(e) for name, projection in projections.items()},
            )
            for e in range(self.n_experts)
        ]

    def cost(self, length: int) -> Cost:
        """Declared cost: of the experts' weights a token meets the share k/E."""
        router, experts = self.router.weight.numel(), self.experts.cost(length)
        shared = Cost() if self.shared is None else self.shared.cost(length)
        share = self.top_k / self.n_experts
        return shared + Cost(
            parameters=router + experts.parameters,
            active_parameters=router + round(experts.parameters * share),
            flops=2 * router + experts.flops * share,
        )

    def reset_parameters(self, init: Initializer) -> None:
        init.linear(self.router)
        self.experts.reset_parameters(init)
        if self.shared is not None:
            self.shared.reset_parameters(init)
