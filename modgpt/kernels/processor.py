"""The instruction set with which the processor multiplies matrices, on which rules of speed depend."""

from __future__ import annotations

import os

import torch

AMX, AVX512_BF16, AVX512, AVX2, OTHER = "amx", "avx512_bf16", "avx512", "avx2", "other"
# The values of ONEDNN_MAX_CPU_ISA that leave out instructions of the processor.
LIMITS = {
    "AVX512_CORE_FP16": AVX512_BF16,
    "AVX512_CORE_BF16": AVX512_BF16,
    "AVX512_CORE_VNNI": AVX512,
    "AVX512_CORE": AVX512,
    "AVX2_VNNI_2": AVX2,
    "AVX2_VNNI": AVX2,
    "AVX2": AVX2,
    "AVX": OTHER,
    "SSE41": OTHER,
}
ORDER = (OTHER, AVX2, AVX512, AVX512_BF16, AMX)


def instruction_set() -> str:
    """`amx`, `avx512_bf16`, `avx512`, `avx2`, or `other`, which includes processors other than x86.

    The first two multiply matrices of bf16. The environment variable ONEDNN_MAX_CPU_ISA limits PyTorch's
    products to less than the processor has; the answer follows it.
    """
    limit = LIMITS.get(os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper(), AMX)
    return min(processor(), limit, key=ORDER.index)


def multiplies_bf16() -> bool:
    """Whether products of bf16 matrices are faster than those of fp32."""
    return instruction_set() in (AMX, AVX512_BF16)


def processor() -> str:
    """The best instruction set of this processor."""
    if torch.cpu._is_amx_tile_supported():
        return AMX
    if torch.cpu._is_avx512_bf16_supported():
        return AVX512_BF16
    if torch.cpu._is_avx512_supported():
        return AVX512
    return AVX2 if torch.cpu._is_avx2_supported() else OTHER
