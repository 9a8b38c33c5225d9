"""What makes each way of joining text vectors and interactions what it is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reaemb_bench.core.artifacts import Corpus, Float32, Ranker, Ranks, TestTargets, ValidationTargets, Vectors
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.execute import execute, fetch
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.plan import Plan, plan
from reaemb_bench.core.registry import build
from reaemb_bench.core.store import Store
from reaemb_bench.encoder.reducers import PCA
from reaemb_bench.recommender.score import open_ranker
from tests.helpers.baselines import BASELINES, WIDTH, mixed, part, tiny
from tests.helpers.encoders import corpus
from tests.helpers.heads import sequences

MACHINE = Machine(device="cpu", mlflow="")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def ran(store: Store, method: str, *sets: str) -> Plan:
    planned = plan(tiny(BASELINES / method / "recipe.toml", Path(), *sets), 42)
    execute(planned, store, MACHINE, lambda event: None)
    return planned


def made_by(planned: Plan, store: Store, step: str, artifact: type) -> Any:
    key = next(job.key for job in planned.jobs if job.name == step)
    return artifact.load(store.verify(key, artifact.__name__.lower()))  # type: ignore[attr-defined]


def unit_rms(values: Float32) -> Float32:
    made: Float32 = values / np.sqrt(np.square(values).mean())
    return made


def test_llm2x_starts_at_the_principal_components_and_moves(store: Store) -> None:
    still = ran(store, "llm2x", "train.learning_rate=1e-12")
    text = made_by(still, store, "encode", Vectors)
    begun = unit_rms(PCA(dimensions=WIDTH).reduce(text).values) / np.sqrt(WIDTH)
    np.testing.assert_allclose(made_by(still, store, "train", Ranker).tensors["vectors"], begun, atol=1e-5)
    moved = ran(store, "llm2x", "train.learning_rate=1e-2")
    assert np.abs(made_by(moved, store, "train", Ranker).tensors["vectors"] - begun).max() > 1e-3


def scaled(items: int = 50) -> tuple[Vectors, Float32]:
    """Vectors whose dimensions have variances in a known order, and a mean that must not count."""
    spread = np.array([3, 1, 9, 2, 7, 5, 8, 4], dtype=np.float32)
    drawn = np.random.default_rng(0).normal(size=(items, 8)).astype(np.float32)
    drawn = (drawn - drawn.mean(axis=0)) / drawn.std(axis=0) * spread
    return Vectors(drawn + 100 / spread), spread


def selected(choice: str, vectors: Vectors, dimensions: int, **settings: Any) -> Float32:
    """Item 0 was bought most often, then item 1, and so on."""
    step = part("step", "llminit", "SelectDimensions", choice=choice, dimensions=dimensions, **settings)
    bought = [list(range(last)) for last in range(1, vectors.items + 1)]
    made: Float32 = step.run(replace(corpus(vectors.items), training=sequences(bought)), vectors).values
    return made


def test_llminit_takes_the_dimensions_of_highest_variance_as_they_are() -> None:
    vectors, spread = scaled()
    made = selected("variance", vectors, 3, popular=1.0)
    assert np.array_equal(made, vectors.values[:, [2, 4, 6]])
    assert sorted(spread[[2, 4, 6]]) == sorted(spread)[-3:]


def test_llminits_variance_is_that_of_the_fifth_of_items_that_is_bought_most() -> None:
    vectors, _ = scaled()
    # Among the others dimension 1 varies most, among the ten most popular items it does not vary.
    values = vectors.values.copy()
    values[10:, 1] *= 100
    values[:10, 1] = 0
    assert np.array_equal(selected("variance", Vectors(values), 1), values[:, [2]])
    assert np.array_equal(selected("variance", Vectors(values), 1, popular=1.0), values[:, [1]])


def test_llminit_takes_evenly_spaced_dimensions_or_random_ones() -> None:
    vectors, _ = scaled()
    assert np.array_equal(selected("uniform", vectors, 4), vectors.values[:, [0, 2, 4, 6]])
    assert np.array_equal(selected("uniform", vectors, 3), vectors.values[:, [0, 2, 4]])
    drawn = [selected("random", vectors, 4, seed=seed) for seed in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
    columns = {column.tobytes() for column in vectors.values.T}
    assert len({column.tobytes() for column in drawn[0].T} & columns) == 4


def test_llminit_refuses_more_dimensions_than_there_are() -> None:
    with pytest.raises(UserError, match="have width 8; lower it"):
        selected("variance", scaled()[0], 9)


def views_of(groups: list[int], vectors: Vectors) -> list[Float32]:
    table = part("item-table", "whitenrec", "Whitened", groups=groups).build(vectors.items, 8, vectors.values)
    return [view.numpy() for view in table.views]


def test_whitenrec_gives_identity_covariance_and_zero_mean() -> None:
    (made,) = views_of([1], mixed())
    np.testing.assert_allclose(np.cov(made.T), np.eye(24), atol=1e-3)
    np.testing.assert_allclose(made.mean(axis=0), 0, atol=1e-4)


def test_whitenrec_stays_nearer_to_the_vectors_than_principal_axes_do() -> None:
    vectors = mixed()
    centred = vectors.values - vectors.values.mean(axis=0)
    (made,) = views_of([1], vectors)
    # Of all whitenings, ZCA's correlates most with what it was given.
    own = np.trace(np.corrcoef(made.T, centred.T)[:24, 24:])
    drawn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(24, 24)))
    assert own > np.trace(np.corrcoef((made @ drawn).T, centred.T)[:24, 24:]) + 1


def test_relaxed_whitening_is_full_within_groups_and_keeps_correlations_between_them() -> None:
    _, made = views_of([1, 3], mixed())
    covariance = np.cov(made.T)
    for start in (0, 8, 16):
        block = slice(start, start + 8)
        np.testing.assert_allclose(covariance[block, block], np.eye(8), atol=1e-3)
    assert np.abs(covariance[:8, 8:16]).max() > 0.1


def test_whitenrec_plus_sums_both_whitenings_behind_one_projection() -> None:
    vectors = mixed()
    torch.manual_seed(0)
    table = part("item-table", "whitenrec", "Whitened", groups=[1, 4]).build(200, 8, vectors.values)
    full, relaxed = views_of([1, 4], vectors)
    summed = table.projection(torch.from_numpy(full)) + table.projection(torch.from_numpy(relaxed))
    torch.testing.assert_close(table(), summed)
    assert sum(parameter.numel() for parameter in table.parameters()) == 24 * 256 + 256 + 256 * 8 + 8


def experts(**settings: Any) -> Any:
    torch.manual_seed(0)
    return part("item-table", "unisrec", "Experts", **settings).build(200, 8, mixed().values)


SHARED_MEAN = {
    "frozen": ("item-table", None, "frozen", {"adapter": "none"}),
    "initialised": ("item-table", None, "initialised", {}),
    "ids-and-frozen": ("item-table", None, "ids-and-frozen", {"adapter": "none"}),
    "unisrec": ("item-table", "unisrec", "Experts", {}),
    "whitenrec": ("item-table", "whitenrec", "Whitened", {"groups": [1, 4]}),
    "llm_esr": ("item-table", "llm_esr", "DualTable", {}),
}


@pytest.mark.parametrize("name", SHARED_MEAN)
def test_what_all_vectors_share_changes_nothing(name: str) -> None:
    """A mean with 99 % of the energy, as language models have it, leaves the differences between items as they are."""
    kind, method, component, settings = SHARED_MEAN[name]
    differences = mixed().values - mixed().values.mean(axis=0)
    tables = []
    for mean in (0.0, 10.0 * float(np.abs(differences).mean())):
        table: Any = (
            part(kind, method, component, **settings) if method else build(kind, {"use": component, **settings})
        )
        torch.manual_seed(0)
        width = 8 if method else 24
        tables.append(table.build(200, width, differences + np.float32(mean)).eval()().detach().numpy())
    np.testing.assert_allclose(tables[1], tables[0], atol=2e-3 * np.abs(tables[0]).max())
    assert tables[0].std(axis=0).min() > 0


@pytest.mark.parametrize("use", ["pca", "whitening"])
def test_reducers_leave_out_what_all_vectors_share(use: str) -> None:
    differences = mixed().values - mixed().values.mean(axis=0)
    reducer: Any = build("reducer", {"use": use, "dimensions": 8})
    small, large = (reducer.reduce(Vectors(differences + np.float32(mean))).values for mean in (0.0, 100.0))
    np.testing.assert_allclose(large, small, atol=2e-3 * np.abs(small).max())


def test_unisrecs_gates_sum_to_one_and_are_noisy_in_training_alone() -> None:
    table = experts()
    with torch.no_grad():
        table.gate.normal_()
    for _ in range(2):
        torch.testing.assert_close(table.gates().sum(dim=1), torch.ones(200))
        assert table.gates().min() >= 0
        assert (table.gates() - table.gates()).abs().max() > 0.01
        table.spread = None
        torch.testing.assert_close(table.gates(), table.gates())
        table = experts()
    table.eval()
    torch.testing.assert_close(table(), table())


def test_a_unisrec_expert_can_whiten() -> None:
    table = experts(experts=1, dropout=0.0)
    given = table.vectors.double()
    variances, axes = torch.linalg.eigh(torch.cov(given.T))
    with torch.no_grad():
        table.shift[0] = given.mean(dim=0)
        table.weight[0] = (axes / variances.sqrt())[:, -8:]
    torch.testing.assert_close(torch.cov(table().T), torch.eye(8), atol=1e-3, rtol=0)


def test_unisrec_mixes_experts_by_its_gates() -> None:
    table = experts(experts=3).eval()
    with torch.no_grad():
        table.gate.normal_()
        table.shift.normal_()
        wanted = sum(table.gates()[:, [number]] * table.expert(number) for number in range(3))
        torch.testing.assert_close(table(), wanted)
        # A gate that is certain leaves one expert.
        table.gate.zero_()
        table.gate[:, 1] = 1e4 * table.vectors.mean(dim=0).sign()
        certain = table.gates()[:, 1] > 0.999
        assert certain.any()
        torch.testing.assert_close(table()[certain], table.expert(1)[certain])


def test_unisrecs_transductive_table_adds_ids() -> None:
    alone, both = experts(), experts(with_ids=True)
    ids = both.first.weight.numel()
    assert ids == 200 * 8
    assert sum(each.numel() for each in both.parameters()) == ids + sum(each.numel() for each in alone.parameters())


@pytest.mark.parametrize(("method", "name"), [("whitenrec", "Whitened"), ("unisrec", "Experts")])
def test_tables_refuse_vectors_of_another_corpus(method: str, name: str) -> None:
    with pytest.raises(UserError, match="200 item vectors for 3 items"):
        part("item-table", method, name).build(3, 8, mixed().values)


def of_part(ranker: Ranker, name: str, half: slice) -> Ranker:
    tensors = {
        tensor.removeprefix(f"{name}."): value
        for tensor, value in ranker.tensors.items()
        if tensor.startswith(f"{name}.")
    }
    return Ranker(ranker.head["head"], {**tensors, "vectors": ranker.tensors["vectors"][:, half]})


@pytest.mark.parametrize("head", ["sasrec", "gru4rec", "bert4rec"])
def test_ensrecs_ranks_come_from_the_sum_of_both_scores(store: Store, head: str) -> None:
    planned = ran(store, "ensrec", f'train.head={{use="{head}", hidden={WIDTH}, max_length=10}}', "train.epochs=3")
    ranker = made_by(planned, store, "train", Ranker)
    corpus, test_targets = fetch(planned, store, Corpus), fetch(planned, store, TestTargets)
    ranks = fetch(planned, store, Ranks)
    assert corpus is not None and test_targets is not None and ranks is not None
    histories = test_targets.histories.select(test_targets.users)
    halves = {"ids": slice(0, WIDTH), "texts": slice(WIDTH, 2 * WIDTH)}
    scores = [
        open_ranker(of_part(ranker, name, half), MACHINE).scores(histories).astype(np.float64)
        for name, half in halves.items()
    ]
    assert np.abs(np.corrcoef(scores[0].ravel(), scores[1].ravel())[0, 1]) < 0.99
    summed = scores[0] + scores[1]
    for place, target in enumerate(test_targets.targets):
        left = np.setdiff1d(np.arange(corpus.items), histories.of(place))
        assert ranks.better[place] == (summed[place, left] > summed[place, target]).sum()


def test_ensrecs_parts_are_what_each_would_be_alone(store: Store) -> None:
    from dataclasses import replace

    from reaemb_bench.core.plan import derive_seed
    from reaemb_bench.recommender.fit import fit
    from tests.helpers.encoders import context

    planned = ran(store, "ensrec")
    ranker = made_by(planned, store, "train", Ranker)
    corpus, validation_targets = fetch(planned, store, Corpus), fetch(planned, store, ValidationTargets)
    job = planned.job_of(Ranker)
    assert corpus is not None and validation_targets is not None and job is not None and job.seed is not None
    step: Any = job.step
    here = replace(context(store.root / "alone"), seed=derive_seed(job.seed, "ids"))
    alone = fit(corpus, validation_targets, None, step.ids, step, here)
    np.testing.assert_allclose(ranker.tensors["vectors"][:, :WIDTH], alone.tensors["vectors"], atol=1e-6)


def test_ensrec_notes_what_each_part_reached(store: Store) -> None:
    planned = ran(store, "ensrec")
    job = planned.job_of(Ranker)
    assert job is not None
    facts = store.manifest(job.key)["facts"]
    assert {"ids: best_validation_ndcg", "texts: best_validation_ndcg"} <= set(facts)
    ticks = store.progress(job.key)
    assert [tick["done"] for tick in ticks] == [1, 2] and {tick["total"] for tick in ticks} == {2}
