"""The architectures of transformers that the config groups can compose: one table for each.

To add an architecture whose parts exist, write a preset (`experiment=…`) and a table.
"""

from __future__ import annotations

from modgpt.huggingface.tables.deepseek import DEEPSEEK_V3, DEEPSEEK_V3_PLAIN
from modgpt.huggingface.tables.gemma import GEMMA2, GEMMA3
from modgpt.huggingface.tables.gpt import BLOOM, GPT2, GPT_NEO, GPTJ, MPT, OPT, PHI, PYTHIA
from modgpt.huggingface.tables.llama import (
    GRANITE,
    LLAMA,
    MISTRAL,
    MISTRAL_FULL,
    MIXTRAL,
    OLMO2,
    OLMOE,
    QWEN2,
    QWEN3,
    QWEN3_MOE,
    STABLELM,
    STARCODER2,
)

# Where several share a model_type, the first one whose `fixed` values fit is taken.
ARCHITECTURES = (
    GPT2,
    GPT_NEO,
    BLOOM,
    MPT,
    PYTHIA,
    OPT,
    GPTJ,
    PHI,
    LLAMA,
    MISTRAL_FULL,
    MISTRAL,
    MIXTRAL,
    QWEN3,
    OLMO2,
    QWEN2,
    QWEN3_MOE,
    OLMOE,
    STABLELM,
    STARCODER2,
    GRANITE,
    GEMMA2,
    GEMMA3,
    DEEPSEEK_V3_PLAIN,
    DEEPSEEK_V3,
)
