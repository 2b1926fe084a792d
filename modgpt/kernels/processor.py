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


CAPABILITIES = {AVX2: "avx2", AVX512: "avx512_f", AVX512_BF16: "avx512_bf16", AMX: "amx_tile"}


def instruction_set() -> str:
    """`amx`, `avx512_bf16`, `avx512`, `avx2`, or `other`, which includes processors other than x86.

    The environment variable ONEDNN_MAX_CPU_ISA limits PyTorch's products to less than the processor has;
    the answer follows it.
    """
    limit = LIMITS.get(os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper(), AMX)
    return min(processor(), limit, key=ORDER.index)


def bf16_is_faster() -> bool:
    """Whether products of bf16 matrices are faster than those of fp32: by a rule, not by a measurement.

    They are with AMX. With the bf16 instructions of AVX-512 it depends on the maker. An AMD EPYC has 380
    to 410 GFLOP/s in bf16 and 130 to 175 in fp32. An Intel Xeon multiplies as fast in fp32, and training
    steps in bf16 take 1.3 to 1.4 times as long as in fp32 (docs/results/performance.md).
    """
    found = instruction_set()
    return found == AMX or (found == AVX512_BF16 and not made_by_intel())


def made_by_intel() -> bool:
    """Whether Intel has made this processor."""
    return str(torch.cpu.get_capabilities().get("cpu_name", "")).startswith("Intel")


def processor() -> str:
    """The best instruction set of this processor."""
    has = torch.cpu.get_capabilities()
    return max((OTHER, *(n for n, key in CAPABILITIES.items() if has.get(key))), key=ORDER.index)
