"""What steps that train a language model, or something in front of it, have in common; settings alone."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from reaemb_bench.component import Randomness, Step


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

    lora_rank: int = Field(default=8, ge=1)
    """Rank of the LoRA matrices."""
    lora_alpha: float = Field(default=32, gt=0)
    """LoRA's scale is this divided by the rank."""
    lora_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on LoRA's inputs."""
    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers that get LoRA matrices."""
