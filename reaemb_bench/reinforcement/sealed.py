"""Safetensors files that say what they hold and carry a checksum: a damaged or foreign one counts as absent."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from reaemb_bench.files import write_atomically


def write_sealed(file: Path, tensors: Mapping[str, Tensor], holds: str) -> None:
    """Write tensors so that a crash leaves the old file or the new one; holds: what they are, for `read_sealed`."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(file, save(ready, {"holds": holds, "sha256": _checksum(ready)}))


def read_sealed(file: Path, holds: str) -> dict[str, Tensor] | None:
    """The tensors, mapped into memory and read as they are touched; None where they are not there, whole, or others."""
    try:
        with safe_open(file, framework="pt") as opened:
            facts = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    return tensors if facts == {"holds": holds, "sha256": _checksum(tensors)} else None


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # NumPy knows no bfloat16; bytes are bytes.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
