"""The modular GPT: embedding, blocks of attention and feed-forward, head.

Legend of all shapes: B batch, T tokens, C model width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modgpt.model.attention.base import Attention
from modgpt.model.block import Block
from modgpt.model.cost import Cost, cost_of, count_parameters
from modgpt.model.ffn.base import FeedForward
from modgpt.model.init import Initializer
from modgpt.model.pos.base import DefinedPosition, Position
from modgpt.model.state import ModelState, State


def gpt(
    tokens: Tensor,
    *,
    embedding: Callable[[Tensor], Tensor],
    pos: DefinedPosition,
    embedding_norm: Callable[[Tensor], Tensor],
    blocks: Sequence[Callable[[Tensor, DefinedPosition], Tensor]],
    norm: Callable[[Tensor], Tensor],
    head: Callable[[Tensor], Tensor],
    embedding_scale: float,
    logit_scale: float,
    logit_softcap: float | None,
) -> Tensor:
    """Embed, add positions, pass all blocks, norm, score every token: tokens (B,T) -> (B,T,V)."""
    x = torch.stack([pos.embed(embedding_scale * embedding(row)) for row in tokens])  # (B,T,C)
    x = embedding_norm(x)
    for block in blocks:
        x = block(x, pos)
    logits = logit_scale * head(norm(x))
    return logits if logit_softcap is None else logit_softcap * torch.tanh(logits / logit_softcap)


class GPT(nn.Module):
    """A decoder-only transformer composed of the parts it is given.

    Args:
        vocab_size: V.
        d_model: width C.
        n_layers: number of blocks.
        n_heads: query heads per attention.
        block_size: training window T.
        dropout: probability, on the embeddings and at the output of every branch.
        attention, ffn, norm, pos, block: partials that make the parts; each layer gets fresh ones.
        embedding_norm: makes a norm of the embeddings (Bloom; Dettmers et al. 2022).
        tied_head: the head's matrix is the embedding's (Press & Wolf 2017).
        head_bias: give the head a bias of its own, which starts at 0 (GPT-J, Phi).
        embedding_scale: factor of the token embeddings (Granite's embedding_multiplier), or `sqrt_width`
            for √C (Gemma).
        logit_scale: factor of the logits, before any cap (Granite's 1/logits_scaling).
        init_std: standard deviation of the initial weights.
        residual_std: the same for the projections that write into the residual stream; None for
            init_std/√(2·n_layers) (GPT-2, section 2.3), 0 to start as the identity.
        seed: of the initial weights; parameters of equal name and shape are equal in every model.
        logit_softcap: c, which makes the logits c·tanh(logits/c) and so keeps them within ±c (Gemma 2,
            2024, section 2); None to leave them alone.

    Raises:
        ValueError: a size is below 1, dropout is not in [0, 1), logit_softcap or a scale is not
            positive; the positional encoding does not support the width of the heads.
    """

    definition = staticmethod(gpt)

    def __init__(
        self,
        *,
        vocab_size: int,
        d_model: int,
        n_layers: int,
        n_heads: int,
        block_size: int,
        dropout: float,
        attention: Callable[..., Attention],
        ffn: Callable[..., FeedForward],
        norm: Callable[[int], nn.Module],
        pos: Callable[..., Position],
        block: Callable[..., Block],
        embedding_norm: Callable[[int], nn.Module] = nn.Identity,
        tied_head: bool = True,
        head_bias: bool = False,
        embedding_scale: float | Literal["sqrt_width"] = 1.0,
        logit_scale: float = 1.0,
        init_std: float = 0.02,
        residual_std: float | None = None,
        seed: int = 0,
        logit_softcap: float | None = None,
    ) -> None:
        super().__init__()
        sizes = {
            "d_model": d_model,
            "n_layers": n_layers,
            "n_heads": n_heads,
            "block_size": block_size,
        }
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"model.{name} must be at least 1, got {value}")
        if not 0 <= dropout < 1:
            raise ValueError(f"model.dropout must lie in [0, 1), got {dropout}")
        if logit_softcap is not None and logit_softcap <= 0:
            raise ValueError(f"model.logit_softcap must be positive, got {logit_softcap}")
        if embedding_scale == "sqrt_width":
            embedding_scale = math.sqrt(d_model)
        scales = {"embedding_scale": embedding_scale, "logit_scale": logit_scale}
        for name, value in scales.items():
            if isinstance(value, str) or not value > 0:  # also NaN
                raise ValueError(f"model.{name} must be positive, got {value}")
        self.block_size, self.dropout, self.logit_softcap = block_size, dropout, logit_softcap
        self.embedding_scale, self.logit_scale = embedding_scale, logit_scale
        # Not nn.Embedding(V, C): the values it draws are drawn again, and on the meta device its drawing
        # imports PyTorch's compiler, which takes a second.
        rows = torch.empty(vocab_size, d_model)
        self.embedding = nn.Embedding.from_pretrained(rows, freeze=False)
        self.embedding_norm = embedding_norm(d_model)
        self.pos = pos(d_model=d_model, n_heads=n_heads, block_size=block_size, init_std=init_std)
        layers = nn.ModuleList(
            block(
                d_model=d_model,
                n_heads=n_heads,
                layer=layer,
                dropout=dropout,
                attention=attention,
                ffn=ffn,
                norm=norm,
            )
            for layer in range(n_layers)
        )
        self.blocks = cast("Sequence[Block]", layers)
        for layer in self.blocks:
            problem = self.pos.unsupported(layer.attention.rotated_dim)
            if problem is not None:
                raise ValueError(problem)
        self.norm = norm(d_model)
        self.head = nn.Linear(d_model, vocab_size, bias=head_bias)
        if tied_head:
            self.head.weight = self.embedding.weight
        if residual_std is None:
            residual_std = init_std / math.sqrt(2 * n_layers)
        self.reset_parameters(Initializer(self, seed=seed, std=init_std, residual_std=residual_std))

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B,T) -> logits (B,T,V)."""
        return self.logits(self.hidden(tokens)[0])

    def logits(self, x: Tensor) -> Tensor:
        """The head: x (B,T,C) -> (B,T,V)."""
        logits = self.head(x)
        if self.logit_scale != 1:
            logits = self.logit_scale * logits
        cap = self.logit_softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    @property
    def plain_head(self) -> bool:
        """Whether the logits are a product with the head's matrix and nothing more."""
        return self.head.bias is None and self.logit_scale == 1 and self.logit_softcap is None

    def hidden(self, tokens: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Everything but the head: tokens (B,T) -> (B,T,C), aux.

        Each entry of aux is stacked over the layers that report it: (layers, …).
        """
        x, _, aux = self.run(tokens, start=0, states=[None] * len(self.blocks))
        names = {name for layer in aux for name in layer}
        return x, {
            name: torch.stack([layer[name] for layer in aux if name in layer]) for name in sorted(names)
        }

    def initial_state(self, batch_size: int, capacity: int) -> ModelState:
        """The state before the first token, with room for `capacity` tokens."""
        attentions = (block.attention for block in self.blocks)
        layers = [attention.initial_state(batch_size, capacity) for attention in attentions]
        return ModelState(length=0, layers=layers)

    def decode(self, tokens: Tensor, state: ModelState) -> tuple[Tensor, ModelState]:
        """Read T more tokens (B,T) -> logits (B,T,V) and the state after them; consumes `state`.

        Raises:
            ValueError: the tokens do not fit into the state's capacity, or lie past the last position
                there is (pos=learned).
        """
        x, layers, _ = self.run(tokens, start=state.length, states=state.layers)
        state = ModelState(length=state.length + tokens.shape[1], layers=layers)
        return self.logits(x), state

    def run(
        self, tokens: Tensor, start: int, states: Sequence[State | None]
    ) -> tuple[Tensor, list[State | None], list[dict[str, Tensor]]]:
        """tokens (B,T) at positions start … start+T−1 -> (B,T,C), states and aux of each layer."""
        end = start + tokens.shape[1]
        if self.pos.max_length is not None and end > self.pos.max_length:
            raise ValueError(
                f"position {end - 1} does not exist: the table of positions ends at "
                f"{self.pos.max_length - 1} (model.block_size={self.block_size})"
            )
        positions = torch.arange(start, end, device=tokens.device)
        x = self.embedding(tokens)
        if self.embedding_scale != 1:
            x = self.embedding_scale * x
        x = self.embedding_norm(self.pos.embed(x, positions))
        x = F.dropout(x, self.dropout, self.training)
        layers, auxes = [], []
        for block, state in zip(self.blocks, states, strict=True):
            # Compiled blocks are for whole windows: decoding has a new length at every token.
            run = block if state is None else block.forward
            x, state, aux = run(x, self.pos, positions, state)
            layers.append(state)
            auxes.append(aux)
        return self.norm(x), layers, auxes

    def compile_blocks(self, **options: Any) -> None:
        """Compile what all layers share, the code of a block, for windows as in training.

        Args:
            options: of `torch.compile`.
        """
        for block in self.blocks:
            # Anew for each shape; a training has three. For shapes that vary PyTorch 2.13 makes wrong
            # code on a CPU (tests/model/test_compile.py notices, with attention=linear).
            block.compile(dynamic=False, **options)

    def reset_parameters(self, init: Initializer) -> None:
        """Draw all initial weights; norms start as their own constructors leave them."""
        init.normal(self.embedding.weight)
        if self.head.weight is not self.embedding.weight:
            init.normal(self.head.weight)
        if self.head.bias is not None:
            nn.init.zeros_(self.head.bias)
        self.pos.reset_parameters(init)
        for block in self.blocks:
            block.reset_parameters(init)

    def cost(self, length: int) -> Cost:
        """Declared cost of the whole model at sequence length `length`."""
        outside = self.pos, self.embedding_norm, self.norm
        parts = sum((cost_of(part, length) for part in (*self.blocks, *outside)), Cost())
        # An embedding row is looked up, not multiplied; the head is one matrix product.
        outer = count_parameters(nn.ModuleList([self.embedding, self.head]))
        return parts + Cost(outer, outer, 2 * self.head.weight.numel())
