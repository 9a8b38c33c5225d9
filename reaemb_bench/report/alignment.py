"""The table of alignment: how near items that users combine lie in each method's vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reaemb_bench.core.artifacts import Alignment
from reaemb_bench.core.runs import Run
from reaemb_bench.core.store import Store
from reaemb_bench.evaluation.summary import over_seeds
from reaemb_bench.report.table import Cell, Column, Row, Table

_COLUMNS = {
    "train_near": Column("near", "train"),
    "validation_near": Column("near", "valid"),
    "unseen_near": Column("near", "unseen"),
    "validation_percentile": Column("percentile", "valid", better="lower"),
    "unseen_percentile": Column("percentile", "unseen", better="lower"),
    "unseen_percentile_se": Column("s.e.", group="percentile", better=""),
    "retrieval": Column("NDCG@10", "nearest"),
    "hubness": Column("hubs", better="lower"),
    "mean_cosine": Column("cosine", better=""),
    "effective_dimensions": Column("dims", cost=True),
}


def alignment_table(named: Mapping[str, Sequence[Alignment]]) -> Table | None:
    """A row for each method that measured its vectors, from its seeds; None if none did."""
    named = {name: measured for name, measured in named.items() if measured}
    if not named:
        return None
    rows = []
    for name, measured in named.items():
        spread = over_seeds(
            [{figure: value for figure, value in one.values.items() if value == value} for one in measured]
        )
        cells = [
            Cell(spread[figure].mean, spread[figure].sd) if figure in spread else Cell(None) for figure in _COLUMNS
        ]
        rows.append(Row(name, tuple(cells)))
    pairs = next(iter(named.values()))[0].values
    notes = (
        "near: share of pairs whose second item is among the 10 nearest of the first by centred cosine; percentile: "
        "mean rank of the second among all items, 0 is nearest and .5 is chance; lower is better",
        f"pairs: train, each item and the one it co-occurs with most ({pairs['train_pairs']:,.0f}); validation, each "
        f"item of a history and the validation target ({pairs['validation_pairs']:,.0f}); unseen, those of them that "
        f"never co-occur in training ({pairs['unseen_pairs']:,.0f}), with the standard error (s.e.) of their "
        "percentile over users",
        "NDCG@10 nearest: validation targets ranked by mean cosine with the last ten items, nothing trained; hubs: "
        "share of all lists of 10 nearest that the most listed 2.5 % of the items hold; cosine: mean of all pairs, not "
        "centred; dims: effective dimensions",
    )
    at = list(_COLUMNS).index("unseen_percentile")
    known = [(value, row.name) for row in rows if (value := row.cells[at].value) is not None]
    verdict = ""
    if known:
        lowest = min(value for value, _ in known)
        names = " and ".join(name for value, name in known if value == lowest)
        verdict = (
            f"{names}{' (the best)' if len(rows) > 1 else ''}: the second item of a pair that never co-occurs in "
            f"training is nearer than {100 * (1 - lowest):.0f} % of all items on average; 50 % is chance"
        )
    return Table("Alignment of the vectors", tuple(_COLUMNS.values()), tuple(rows), notes, verdict=verdict)


def alignments_of(run: Run, store: Store) -> list[Alignment]:
    """What a run measured last on its vectors, one a seed; fewer if it measured nothing or the store lost it."""
    keys = [run.key_of(Alignment, seed) for seed in range(len(run.seeds))]
    return [store.load(key, Alignment) for key in keys if key is not None and store.has(key)]
