"""What the page shows of one run, as plain values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modgpt.errors import UserError
from modgpt.inference.context import trained_context
from modgpt.inference.generation import stream
from modgpt.inference.play.contributions import contributions, inputs_of
from modgpt.inference.sampling import Sampling
from modgpt.model.attention.base import Attention
from modgpt.model.ffn.moe import MixtureOfExperts
from modgpt.runs.folder import Run

MOST_SHOWN = 12  # tokens with their probabilities
MOST_LOOKED = 96  # tokens of a map of attention
MOST_READ = 20_000  # characters whose surprise is measured
MOST_WRITTEN = 2_000  # tokens of a continuation

DENSE = "This feed-forward layer has no experts: every token meets all of it."
CHOSEN = "The colour is the expert with the largest gate. Point at a token to read the gates."
WEIGHTS = (
    "A row is a token that looks back. The darker a column, the more that token adds to its output."
)
SIGNED = (
    "This attention keeps a state in place of a table. The picture shows what each earlier token still "
    "adds through that state: the sooner a row fades to the left, the sooner the state forgets. Blue "
    "takes away: a state that is overwritten subtracts the old value."
)


@dataclass(frozen=True)
class Player:
    """One run to play with."""

    run: Run
    name: str

    def about(self) -> dict[str, Any]:
        """The name, the parts and the size of the run."""
        record, model = self.run.record, self.run.model
        groups = ("attention", "ffn", "norm", "pos")
        choices = record.choices if record else {}
        return {
            "name": self.name,
            "parts": ", ".join(f"{group}={choices[group]}" for group in groups if group in choices),
            "loss": record.final_val_loss if record else None,
            "layers": len(model.blocks),
            "unit": self.run.tokenizer.unit,
            "block_size": model.block_size,
        }

    def tokens(self, text: str) -> Tensor:
        """The ids (T,) of a text.

        Raises:
            UserError: it is empty, or has characters that the run does not know.
        """
        unknown = self.run.tokenizer.unknown(text)
        if unknown:
            raise UserError(f"{self.name} does not know {', '.join(map(repr, unknown[:8]))}")
        ids = self.run.tokenizer.encode(text)
        if not len(ids):
            raise UserError(f"{self.name}: the text has no tokens")
        return ids

    @property
    def device(self) -> torch.device:
        return self.run.model.embedding.weight.device

    def written(self, prompt: str, **options: Any) -> Iterator[dict[str, Any]]:
        """A continuation, token by token: its text, and the most probable tokens at its place.

        Args:
            prompt: to continue.
            options: of `Sampling`.

        Raises:
            UserError: the prompt cannot be encoded, or an option is out of its range.
        """
        sampling = Sampling(**options)
        if sampling.max_new_tokens > MOST_WRITTEN:
            asked = sampling.max_new_tokens
            raise UserError(f"at most {MOST_WRITTEN:,} tokens at a time, got {asked:,}")
        tokenizer, model = self.run.tokenizer, self.run.model
        tokens = self.tokens(prompt or tokenizer.start)
        draw = sampling.picker(self.device)
        seen: list[list[list[Any]]] = []

        def pick(logits: Tensor) -> Tensor:
            seen.append(self.most_probable(logits[0]))
            return draw(logits)

        given = tokens[None].to(self.device)
        new = stream(model, given, pick, sampling.max_new_tokens, sampling.context)
        for piece in tokenizer.decode_stream(new, prompt=tokens):
            yield {"text": piece, "probabilities": seen[-1]}

    def most_probable(self, logits: Tensor) -> list[list[Any]]:
        """Pairs of a token's text and its probability, the most probable first."""
        found = logits.float().softmax(-1).topk(min(MOST_SHOWN, len(logits)))
        pairs = zip(found.indices.tolist(), found.values.tolist(), strict=True)
        return [[self.run.tokenizer.decode([token]), p] for token, p in pairs]

    @torch.no_grad()
    def surprise(self, text: str) -> dict[str, Any]:
        """How surprised the run is by each token of a text: −log p, in nats.

        A text that is longer than the model's window is read in windows that overlap by half, so that
        every token but the first has at least half a window before it.
        """
        if len(text) > MOST_READ:
            raise UserError(f"at most {MOST_READ:,} characters at a time, got {len(text):,}")
        tokenizer, model = self.run.tokenizer, self.run.model
        ids = self.tokens(text)
        nats = [math.nan]
        window = trained_context(model) or len(ids)
        model.eval()
        while len(nats) < len(ids):
            start = max(0, len(nats) - 1 - (window // 2 if len(nats) > 1 else 0))
            part = ids[start : start + window + 1].to(self.device)
            logs = model(part[None, :-1])[0].float().log_softmax(-1)
            losses = -logs.gather(-1, part[1:, None])[:, 0]
            nats += losses[len(nats) - 1 - start :].tolist()
        rest = torch.tensor(nats[1:], dtype=torch.float64)
        texts = list(tokenizer.decode_stream(iter(ids[:, None])))
        if len(texts) != len(ids):  # tokens that are parts of a character
            texts = [tokenizer.decode([token]) for token in ids.tolist()]
        size = len(text.encode())
        total = float(rest.sum()) if len(rest) else math.nan
        return {
            "tokens": [[t, None if math.isnan(n) else n] for t, n in zip(texts, nats, strict=True)],
            "nats_per_token": total / len(rest) if len(rest) else None,
            "bits_per_byte": total / math.log(2) / size if len(rest) else None,
        }

    @torch.no_grad()
    def look(self, text: str, layer: int) -> dict[str, Any]:
        """What a layer does with a text: the weights of its attention, and its choice of experts."""
        model = self.run.model
        if not 0 <= layer < len(model.blocks):
            raise UserError(f"{self.name} has layers 1 to {len(model.blocks)}, got {layer + 1}")
        ids = self.tokens(text)[: min(MOST_LOOKED, model.pos.max_length or MOST_LOOKED)]
        block = model.blocks[layer]
        attention, ffn = block.attention, block.ffn
        assert isinstance(attention, Attention)
        x, before_ffn = inputs_of(model, [attention, ffn], ids[None].to(self.device))
        weights = contributions(attention, x, model.pos)
        experts = self.experts(ffn, before_ffn)
        signed = "table" not in kind_of(attention)
        return {
            "tokens": [self.run.tokenizer.decode([token]) for token in ids.tolist()],
            "heads": [[[round(w, 4) for w in row] for row in head] for head in weights.tolist()],
            "explained": SIGNED if signed else WEIGHTS,
            "experts": experts,
            "experts_explained": DENSE if experts is None else CHOSEN,
        }

    @staticmethod
    def experts(ffn: torch.nn.Module, x: Tensor) -> list[list[list[float]]] | None:
        """For each token pairs of an expert and its gate, the largest first; None without experts."""
        if not isinstance(ffn, MixtureOfExperts):
            return None
        found = ffn.router(x[0]).float().softmax(-1).topk(ffn.top_k)
        gates = found.values / found.values.sum(-1, keepdim=True)
        return [
            [[int(e), round(g, 3)] for e, g in zip(es, gs, strict=True)]
            for es, gs in zip(found.indices.tolist(), gates.tolist(), strict=True)
        ]


def kind_of(attention: Attention) -> str:
    """`table` for an attention with a weight for every pair, `state` for one with a state."""
    grows = attention.state_size(512) > attention.state_size(64) or attention.reach is not None
    return "table" if grows else "state"
