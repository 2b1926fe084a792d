"""What a GPU has: memory, and the peak of its matrix products in bf16."""

from __future__ import annotations

from dataclasses import dataclass

from modgpt.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Device:
    """One kind of GPU.

    Attributes:
        memory: bytes, as its maker counts them.
        peak: FLOP/s of dense bf16 products with sums in fp32.
        source: the maker's sheet that says so.
    """

    memory: float
    peak: float
    source: str


def device(gigabytes: float, tflops: float, source: str) -> Device:
    return Device(gigabytes * 1e9, tflops * 1e12, source)


# Sheets that give a peak with 2:4 sparsity say twice as much.
DEVICES = {
    "b200": device(180, 2250, "NVIDIA HGX B200 datasheet"),
    "h200": device(141, 989, "NVIDIA H200 SXM datasheet"),
    "h100": device(80, 989, "NVIDIA H100 SXM datasheet"),
    "a100": device(80, 312, "NVIDIA A100 80GB SXM datasheet"),
    "a100-40gb": device(40, 312, "NVIDIA A100 40GB SXM datasheet"),
    "l40s": device(48, 362, "NVIDIA L40S datasheet"),
    "l4": device(24, 121, "NVIDIA L4 datasheet"),
    "a10": device(24, 125, "NVIDIA A10 datasheet"),
    "rtx4090": device(24, 165, "NVIDIA Ada GPU architecture whitepaper, appendix A"),
    "rtx3090": device(24, 71, "NVIDIA Ampere GA102 whitepaper, table 3"),
    "mi300x": device(192, 1307, "AMD Instinct MI300X data sheet"),
}


def device_named(name: str) -> Device:
    """One of `DEVICES`.

    Raises:
        UserError: there is none of that name.
    """
    if name not in DEVICES:
        raise UserError(
            f"unknown --gpu {name!r}{did_you_mean(name, DEVICES)} (known: {', '.join(DEVICES)}); "
            "for another one give --gpu-memory and --peak-tflops"
        )
    return DEVICES[name]
