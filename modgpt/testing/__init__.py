"""The kit that proves a part, ours or a user's own.

    from modgpt.testing import check_attention

    def test_my_attention() -> None:
        check_attention(MyAttention)

holds outputs, gradients and states to the part's definition, and its declared cost to the counted one.
A model with the part has to do what every model must: no output depends on a later input, decoding
equals the forward pass, every parameter gets a gradient, weights may be in fp64 or bf16. `check` takes a
part of any kind.
"""

from modgpt.testing.checks import check, check_attention, check_ffn, check_norm, check_position

__all__ = ["check", "check_attention", "check_ffn", "check_norm", "check_position"]
