"""Files of `torch.save`, read as data: nothing in them runs, and none is larger than it looks."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modgpt.errors import UserError

MOST_VALUES = 10_000_000  # values in the nested dictionaries and lists of one file


def load_plain(path: Path) -> Any:
    """The content of a file of `torch.save`: tensors and plain types, on the CPU.

    Raises:
        UserError: the file is missing or damaged, holds other objects than tensors and plain types, or
            expands to more than its own size.
    """
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"refused {path}: only tensors and plain types are read ({reason})") from error
    except Exception as error:  # a damaged file can break the reader in any way
        raise UserError(f"cannot read {path} ({type(error).__name__})") from error
    check_content(path, content)
    return content


def check_archive(path: Path) -> None:
    """Refuse an archive with compressed members, which `torch.save` never writes.

    Raises:
        UserError: the file is no archive of `torch.save`, or a member is compressed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(f"{path} is not a file of torch.save, or it is damaged") from error
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise UserError(f"refused {path}: it is compressed, and could expand to any size")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise UserError(f"refused {path}: its members claim more bytes than the file has")


def check_content(path: Path, content: Any) -> None:
    """Hold the nested values of a file to its size.

    Raises:
        UserError: a tensor claims elements that the file does not hold, or the nesting is too deep, too
            large, or contains itself.
    """
    try:
        values = count_values(path, content, {})
    except RecursionError as error:
        raise UserError(f"refused {path}: its values are nested too deeply") from error
    if values > MOST_VALUES:
        raise UserError(f"refused {path}: it expands to more than {MOST_VALUES:,} values")


def count_values(path: Path, value: Any, counted: dict[int, int]) -> int:
    """How many values a nested value expands to; what is shared counts each time."""
    if isinstance(value, Tensor):
        check_dense(path, value)
        return 1
    if isinstance(value, Mapping):
        inner: Iterable[Any] = (*value.keys(), *value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        inner = value
    else:
        return 1
    if id(value) not in counted:
        counted[id(value)] = MOST_VALUES + 1  # a value inside itself never ends
        counted[id(value)] = 1 + sum(count_values(path, v, counted) for v in inner)
    return counted[id(value)]


def check_dense(path: Path, tensor: Tensor) -> None:
    """Refuse a tensor that is larger than its storage, or has none on the CPU.

    Raises:
        UserError: it is sparse, quantized or expanded, or its values are not in the file.
    """
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise UserError(f"refused {path}: it has a tensor that is not dense")
    claimed, held = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    if claimed > held:
        raise UserError(
            f"refused {path}: a tensor of shape {tuple(tensor.shape)} claims {claimed:,} bytes, "
            f"the file holds {held:,} of it"
        )
