"""What makes each tuned baseline the method that it is named after, on a small language model."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from reaemb_bench.artifacts import Corpus, Ranker, Signal, Vectors
from reaemb_bench.errors import UserError
from reaemb_bench.losses.info_nce import InfoNCE
from reaemb_bench.recipe import SHIPPED
from reaemb_bench.registry import build, find
from tests.encoding_helpers import context

BASELINES = SHIPPED / "baselines"


def step(method: str, name: str, **settings: Any) -> Any:
    """A step of a baseline's own file."""
    return build("step", {"use": f"{BASELINES / method / 'component.py'}:{name}", **settings})


def module(method: str, name: str) -> ModuleType:
    """The module of a baseline's own file, which holds the component `name`."""
    return sys.modules[find("step", f"{BASELINES / method / 'component.py'}:{name}").__module__]


def shop(folder: Path, users: int = 60, items: int = 24) -> tuple[Corpus, Signal]:
    """Simulated customers and what they buy last but one."""
    source = {"use": "simulated", "users": users, "items": items, "clusters": 3}
    corpus, signal, _ = build("step", {"use": "prepare", "source": source}).run(context(folder))  # type: ignore[attr-defined]
    return corpus, signal


HEAD = {"use": "sasrec", "hidden": 16, "max_length": 10, "dropout": 0.0}


@pytest.fixture(scope="module")
def trained_ids(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Signal, Ranker]:
    folder = tmp_path_factory.mktemp("ids")
    corpus, signal = shop(folder)
    ids = build("step", {"use": "train-ids", "head": HEAD, "epochs": 5})
    return corpus, signal, ids.run(corpus, signal, context(folder))  # type: ignore[attr-defined]


def random_vectors(corpus: Corpus) -> Vectors:
    return Vectors(np.random.default_rng(0).normal(size=(corpus.items, 20)).astype(np.float32))


def aligned(trained_ids: tuple[Corpus, Signal, Ranker], folder: Path, **settings: Any) -> Ranker:
    corpus, signal, ranker = trained_ids
    table = {"head": HEAD, "epochs": 5, "patience": 5, **settings}
    made: Ranker = step("llmemb", "TrainAligned", **table).run(
        corpus, signal, random_vectors(corpus), ranker, context(folder)
    )
    return made


def test_llmemb_pulls_the_adapted_vectors_towards_the_trained_id_table(
    trained_ids: tuple[Corpus, Signal, Ranker], tmp_path: Path
) -> None:
    ids = torch.from_numpy(trained_ids[2].tensors["vectors"])

    def distance(ranker: Ranker) -> float:
        return InfoNCE().loss(torch.from_numpy(ranker.tensors["vectors"]), ids, torch.tensor(2.0)).item()

    free, held = (distance(aligned(trained_ids, tmp_path, weight=weight)) for weight in (0.0, 1.0))
    assert held < free - 0.02


def test_llmemb_without_weight_is_plain_training(trained_ids: tuple[Corpus, Signal, Ranker], tmp_path: Path) -> None:
    corpus, signal, _ = trained_ids
    plain = build("step", {"use": "train", "head": HEAD, "epochs": 5, "patience": 5})
    made = plain.run(corpus, signal, random_vectors(corpus), context(tmp_path))  # type: ignore[attr-defined]
    without = aligned(trained_ids, tmp_path, weight=0.0)
    assert all(np.array_equal(made.tensors[name], without.tensors[name]) for name in made.tensors)


def test_llmemb_refuses_an_id_table_of_another_width(
    trained_ids: tuple[Corpus, Signal, Ranker], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="same `hidden`"):
        aligned(trained_ids, tmp_path, head={**HEAD, "hidden": 8})
