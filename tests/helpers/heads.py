"""What the tests of all heads share: rows of items, the paper's weights, a plain padded reference."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from reaemb_bench.core.artifacts import Sequences
from reaemb_bench.recommender.packing import Packed

FIDELITY = Path(__file__).parents[1] / "fixtures" / "fidelity"
CPU = torch.device("cpu")


def sequences(rows: list[list[int]]) -> Sequences:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Sequences(np.array([item for row in rows for item in row], dtype=np.int32), offsets)


def fixture(head: str) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(FIDELITY / f"srs_{head}.safetensors")


def real_rows(padded: Tensor) -> list[list[int]]:
    """Rows of item numbers from 0, of a fixture whose ids count from 1 and whose padding is 0."""
    return [[int(item) - 1 for item in row if item > 0] for row in padded]


def attention_weights(theirs: dict[str, Tensor], positions: int) -> dict[str, Tensor]:
    """The weights of a fixture's self-attentive backbone under this project's names."""
    theirs = {name.removeprefix("weight."): value for name, value in theirs.items() if name.startswith("weight.")}
    ours = {"position.weight": theirs["pos_emb.weight"][:positions]}
    for part in ("weight", "bias"):
        ours[f"norm.{part}"] = theirs[f"backbone.last_layernorm.{part}"]
    for block in range(2):
        attention = f"backbone.attention_layers.{block}"
        for part in ("weight", "bias"):
            projection = theirs[f"{attention}.in_proj_{part}"]
            ours[f"blocks.{block}.query.{part}"] = projection[:16]
            ours[f"blocks.{block}.key_value.{part}"] = projection[16:]
            ours[f"blocks.{block}.output.{part}"] = theirs[f"{attention}.out_proj.{part}"]
            ours[f"blocks.{block}.attention_norm.{part}"] = theirs[f"backbone.attention_layernorms.{block}.{part}"]
            ours[f"blocks.{block}.feed_forward_norm.{part}"] = theirs[f"backbone.forward_layernorms.{block}.{part}"]
            for conv, layer in (("conv1", "inner"), ("conv2", "outer")):
                value = theirs[f"backbone.forward_layers.{block}.{conv}.{part}"]
                ours[f"blocks.{block}.{layer}.{part}"] = value.squeeze(-1) if part == "weight" else value
    return ours


def everywhere(network: nn.Module, packed: Packed, vectors: Tensor) -> Tensor:
    """The states (positions, hidden) at all positions."""
    states: Tensor = network(packed, vectors, torch.arange(len(packed.items)))
    return states
