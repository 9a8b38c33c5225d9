"""How near to each other item vectors lie of items that users combine, measured on the vectors themselves.

No recommender is trained: what an embedder brings can be read in seconds, where an adapter cannot learn the same from
the same interactions. The vectors of the catalogue are centred and compared by cosine. Shapes: p pairs of items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from scipy.sparse import csr_array
from torch import Tensor

from reaemb_bench.core.artifacts import Alignment, Corpus, Float64, Int64, ValidationTargets, Vectors
from reaemb_bench.core.component import Context, DataAccess, Step
from reaemb_bench.core.execute import vector_facts
from reaemb_bench.data.cooccurrence import cooccurrence
from reaemb_bench.evaluation.metrics import ndcg

_ANCHORS_AT_ONCE = 512
_PAIRS = 100_000
"""Most pairs of a kind that are measured; of more, whole users are drawn."""
_LISTS = 20_000
"""Most items whose lists of nearest items are counted; of more, every n-th."""
_UNIFORMITY = 2_048
"""Most items whose distances are measured for uniformity."""
_HUBS = 0.025


@dataclass(frozen=True)
class Pairs:
    """Pairs of an item and another one that should lie near: items, others (p,). owners: (p,) whose pair it is."""

    items: Int64
    others: Int64
    owners: Int64

    def some(self, chosen: np.ndarray) -> Pairs:
        """The pairs that a mask or an index (p,) chooses."""
        return Pairs(self.items[chosen], self.others[chosen], self.owners[chosen])


class MeasureAlignment(Step):
    """Measure how near items that users combine lie in the vectors, by pairs of training and of validation.

    A step that measures may see validation pairs, and gives its result to nobody who learns. Three kinds of pairs:
    `train`, each item and the one that it co-occurs with most; `validation`, each item of a history and the user's
    validation target; `unseen`, those of them that never co-occur in training, which no counting could know.
    """

    data_access: ClassVar[DataAccess] = "validation"

    nearest: int = Field(default=10, ge=1)
    """How many nearest items count as near."""

    def run(self, corpus: Corpus, targets: ValidationTargets, vectors: Vectors, context: Context) -> Alignment:
        """What `measure_alignment` returns; every figure that could be measured is noted too."""
        measured = measure_alignment(vectors, corpus, targets, self.nearest)
        context.note({name: value for name, value in measured.values.items() if np.isfinite(value)})
        return measured


def measure_alignment(vectors: Vectors, corpus: Corpus, targets: ValidationTargets, nearest: int = 10) -> Alignment:
    """How well vectors (items, width) align with what users combine.

    For each kind of pairs: `near`, the share of pairs whose second item is among the `nearest` of the first;
    `percentile`, the mean rank of the second among all others as a share of them, 0 the nearest and 0.5 chance, with
    its standard error over users (`percentile_se`), who bring many pairs each; `pairs`, how many were measured.
    `retrieval`: NDCG@10 of validation targets among all items outside of the history, ranked by their mean cosine with
    the last ten items of the history. `hubness`: the share of all lists of the 10 nearest that the most listed 2.5 % of
    the items hold; .025 if none is preferred. `uniformity`: log of the mean of exp(-2 d^2) over distances d of centred
    unit vectors (Wang and Isola, arXiv 2005.10242), lower is more uniform. `mean_cosine`, `effective_dimensions`: see
    `vector_facts`.
    """
    units = _centred_units(vectors)
    counts = cooccurrence(corpus.training, corpus.items)
    values: dict[str, float] = {}
    validation = validation_pairs(corpus, targets)
    unseen = ~_cooccur(counts, validation)
    kinds = {"train": training_pairs(counts), "validation": validation, "unseen": validation.some(unseen)}
    for kind, pairs in kinds.items():
        pairs = _fewer(pairs)
        better = _better(units, pairs)
        percentile = better / max(1, len(units) - 2)
        values[f"{kind}_pairs"] = float(len(better))
        values[f"{kind}_near"] = float((better < nearest).mean()) if len(better) else float("nan")
        values[f"{kind}_percentile"] = float(percentile.mean()) if len(better) else float("nan")
        values[f"{kind}_percentile_se"] = _standard_error(percentile, pairs.owners)
    values["retrieval"] = _retrieval(units, corpus, targets)
    values["hubness"] = _hubness(units)
    sample = units[:: max(1, -(-len(units) // _UNIFORMITY))]
    values["uniformity"] = float(torch.pdist(sample).square().mul(-2).exp().mean().log())
    facts = vector_facts(vectors)
    values |= {name: facts[name] for name in ("mean_cosine", "effective_dimensions")}
    return Alignment(values)


def training_pairs(counts: csr_array) -> Pairs:
    """Each item that co-occurs with any, and the one that it co-occurs with most (the first of several)."""
    items = np.flatnonzero(np.diff(counts.indptr))
    rows = counts[items]
    others = np.array(
        [rows.indices[a + rows.data[a:b].argmax()] for a, b in zip(rows.indptr, rows.indptr[1:], strict=False)]
    )
    return Pairs(items, others.astype(np.int64), items)


def validation_pairs(corpus: Corpus, targets: ValidationTargets) -> Pairs:
    """Each different item of a history and the validation target of its user, unless they are the same item."""
    histories = corpus.training.select(targets.users)
    pairs = np.unique(np.stack([histories.owners, histories.items.astype(np.int64)]), axis=1)
    owners, items = pairs
    others = targets.targets[owners].astype(np.int64)
    return Pairs(items, others, owners).some(items != others)


def _cooccur(counts: csr_array, pairs: Pairs) -> np.ndarray:
    """(p,), whether the two items co-occur in training."""
    known = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr)) * counts.shape[0] + counts.indices
    return np.isin(pairs.items * counts.shape[0] + pairs.others, known)


def _fewer(pairs: Pairs) -> Pairs:
    if len(pairs.items) <= _PAIRS:
        return pairs
    owners = np.random.default_rng(0).permutation(np.unique(pairs.owners))
    kept = owners[: max(2, len(owners) * _PAIRS // len(pairs.items))]
    return pairs.some(np.isin(pairs.owners, kept))


def _centred_units(vectors: Vectors) -> Tensor:
    values = torch.from_numpy(np.concatenate([np.array(block) for block in vectors.blocks()]))
    return torch.nn.functional.normalize(values - values.mean(0), dim=1)


def _better(units: Tensor, pairs: Pairs) -> Float64:
    """(p,): how many other items lie nearer to the first item of each pair than the second one; equal ones by half."""
    better = np.zeros(len(pairs.items))
    order = np.argsort(pairs.items, kind="stable")
    anchors, starts = np.unique(pairs.items[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    for first in range(0, len(anchors), _ANCHORS_AT_ONCE):
        some = slice(first, first + _ANCHORS_AT_ONCE)
        cosines = units[torch.from_numpy(anchors[some])] @ units.T
        for row, anchor, start, end in zip(cosines, anchors[some], starts[some], ends[some], strict=True):
            chosen = order[start:end]
            own = row[torch.from_numpy(pairs.others[chosen])]
            row[anchor] = -torch.inf
            ascending = row.sort().values
            below = torch.searchsorted(ascending, own)
            until = torch.searchsorted(ascending, own, right=True)
            # Of those that are equal, the second item itself is one.
            better[chosen] = len(ascending) - until.double() + (until - below - 1) / 2
    return better


def _standard_error(values: Float64, owners: Int64) -> float:
    """Standard error of the mean of values (p,) whose owners are independent of each other, not their pairs."""
    if len(values) < 2:
        return float("nan")
    sums = np.bincount(np.unique(owners, return_inverse=True)[1], weights=values - values.mean())
    return float(np.sqrt(np.square(sums).sum()) / len(values))


def _retrieval(units: Tensor, corpus: Corpus, targets: ValidationTargets, last: int = 10) -> float:
    histories = corpus.training.select(targets.users)
    gains = []
    for start in range(0, len(targets.users), _ANCHORS_AT_ONCE):
        users = range(start, min(start + _ANCHORS_AT_ONCE, len(targets.users)))
        means = torch.stack([units[torch.from_numpy(histories.of(user)[-last:])].mean(0) for user in users])
        scores = means.nan_to_num() @ units.T
        for row, user in zip(scores, users, strict=True):
            target = int(targets.targets[user])
            own = row[target].clone()
            row[torch.from_numpy(histories.of(user))] = -torch.inf
            row[target] = -torch.inf
            better, tied = (row > own).sum(), (row == own).sum()
            gains.append(ndcg(np.array([int(better)]), np.array([int(tied)]), 10)[0])
    return float(np.mean(gains)) if gains else float("nan")


def _hubness(units: Tensor, listed: int = 10) -> float:
    step = max(1, -(-len(units) // _LISTS))
    times = torch.zeros(len(units))
    for start in range(0, len(units), _ANCHORS_AT_ONCE * step):
        anchors = torch.arange(start, min(start + _ANCHORS_AT_ONCE * step, len(units)), step)
        cosines = units[anchors] @ units.T
        cosines[torch.arange(len(anchors)), anchors] = -torch.inf
        nearest = cosines.topk(min(listed, len(units) - 1), dim=1).indices
        times += torch.bincount(nearest.flatten(), minlength=len(units))
    hubs = max(1, round(_HUBS * len(units)))
    return float(times.topk(hubs).values.sum() / times.sum())
