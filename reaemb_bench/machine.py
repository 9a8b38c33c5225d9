"""Machine settings: where and how fast a recipe runs, never what it computes. They enter no key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from platformdirs import user_cache_path
from pydantic import BaseModel, ConfigDict, Field

from reaemb_bench.errors import UserError

if TYPE_CHECKING:
    import torch


class Machine(BaseModel):
    """Device, precision, memory and folders of one machine."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    device: str = "auto"
    """`auto` takes a GPU where there is one; else `cpu`, `cuda`, `cuda:1`, `mps`."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the language model's arithmetic; `auto` is bfloat16 on CUDA and float32 elsewhere."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Prompts that pass through the language model at once; None chooses by device. Results do not depend on it beyond
    rounding, but for the masks of LoRA dropout, which are drawn for each micro-batch."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of torch, set by the command line before torch starts; None leaves torch's own choice."""
    deterministic: bool = False
    """Whether torch may use deterministic algorithms alone: a GPU's bits then repeat, at a price in time. A CPU's
    repeat anyway; see `reaemb_bench.determinism`."""
    store: Path = Path(".reaemb-bench/store")
    """Folder of everything that was computed."""
    cache: Path = user_cache_path("reaemb-bench")
    """Folder of downloaded data and weights, shared by all projects."""
    mlflow: str = "sqlite:///mlflow.db"
    """MLflow tracking URI; an empty string tracks nothing."""
    log_models: bool = False
    """Whether recommenders and vectors are copied to MLflow too."""

    def torch_device(self) -> torch.device:
        """The torch device to compute on. Raises UserError where it does not exist."""
        import torch

        if self.device != "auto":
            try:
                chosen = torch.device(self.device)
            except RuntimeError:
                raise UserError(
                    f"--device: torch knows no device '{self.device}'; say auto, cpu, cuda or mps"
                ) from None
            if chosen.type == "cuda" and not torch.cuda.is_available():
                raise UserError(
                    f"--device: torch finds no CUDA device here, so '{self.device}' cannot be used; say auto"
                )
            return chosen
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def torch_dtype(self) -> torch.dtype:
        """The floating-point type of the language model's arithmetic."""
        import torch

        if self.precision == "auto":
            return torch.bfloat16 if self.torch_device().type == "cuda" else torch.float32
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32
