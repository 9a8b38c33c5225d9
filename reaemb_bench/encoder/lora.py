"""LoRA adapters in a language model, and the settings that all tuning shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from torch import nn

from reaemb_bench.core.artifacts import Encoder
from reaemb_bench.core.component import Foreseen, Randomness, Step
from reaemb_bench.core.errors import UserError
from reaemb_bench.encoder.dropout import RowDropout
from reaemb_bench.encoder.language_model import quiet
from reaemb_bench.encoder.thought_model import ThoughtModel


class TuneSettings(Step):
    """The settings of AdamW that all tuning shares."""

    randomness: ClassVar[Randomness] = "embedder"

    steps: int = Field(default=2000, ge=0)
    """Optimiser steps; 0 trains nothing."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """AdamW's learning rate at the first step; it falls linearly to 0."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay."""
    clip_norm: float | None = Field(default=1.0, gt=0)
    """Largest norm of the gradient of all trained parameters; None clips nothing."""


class LoraSettings(TuneSettings):
    """The settings that all tuning of a language model through LoRA shares."""

    version: ClassVar[int] = 2

    lora_rank: int = Field(default=8, ge=1)
    """Rank of the LoRA matrices."""
    lora_alpha: float = Field(default=32, gt=0)
    """LoRA's scale is this divided by the rank."""
    lora_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on LoRA's inputs."""
    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers that get LoRA matrices."""

    def foresee(self, given: Mapping[type, Foreseen]) -> Foreseen:
        """The same width and thoughts as before."""
        return given.get(Encoder, Foreseen())


def add_lora(model: ThoughtModel, settings: LoraSettings) -> Any:
    """Puts fresh LoRA adapters into the model's blocks, in place; returns the peft model that can save them.

    Adapters that are already there stay in use, frozen.
    """
    # It takes two seconds to import.
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(settings.lora_targets),
    )
    frozen = list(getattr(model.causal_lm, "peft_config", {}))
    try:
        with quiet():
            adapted = get_peft_model(model.causal_lm, config)
    except ValueError as error:
        raise UserError(f"lora_targets: {error}".splitlines()[0]) from None
    _use_adapters(model, frozen, ["default"])
    for number, module in enumerate(_lora_layers(model)):
        if settings.lora_dropout:
            module.lora_dropout["default"] = RowDropout(settings.lora_dropout, number, model.mask_keys)
    return adapted


def load_adapters(model: ThoughtModel, folders: Sequence[Path], *, merge: bool) -> None:
    """Puts saved LoRA adapters into the model's blocks, in place, frozen; merge: adds them to the weights instead."""
    if not folders:
        return
    # It takes two seconds to import.
    from peft import PeftModel

    with quiet():
        for folder in folders:
            adapted = PeftModel.from_pretrained(
                model.causal_lm, folder, adapter_name=folder.name, torch_device=str(model.device)
            )
            model.causal_lm = adapted.merge_and_unload() if merge else adapted.get_base_model()
    if not merge:
        _use_adapters(model, [folder.name for folder in folders], [])


def _use_adapters(model: ThoughtModel, frozen: list[str], trained: list[str]) -> None:
    """Activates adapters; frozen ones have no dropout and no gradient."""
    for module in _lora_layers(model):
        module.set_adapter([*frozen, *trained])
        for name in frozen:
            if name in module.lora_A:
                module.lora_dropout[name] = nn.Identity()
                module.lora_A[name].requires_grad_(False)
                module.lora_B[name].requires_grad_(False)


def _lora_layers(model: ThoughtModel) -> list[Any]:
    from peft.tuners.lora import LoraLayer

    return [module for module in model.causal_lm.modules() if isinstance(module, LoraLayer)]


def step_seed(seed: int, number: int) -> int:
    """Seed of one step of a training, in [0, 2**32)."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
