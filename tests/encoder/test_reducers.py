"""PCA and whitening, against scikit-learn and their definitions."""

import numpy as np
import pytest

from reaemb_bench.core.artifacts import Vectors
from reaemb_bench.core.errors import UserError
from reaemb_bench.encoder.reducers import PCA, Unreduced, Whitening


def vectors(items: int = 200, width: int = 12) -> Vectors:
    generator = np.random.default_rng(3)
    mixed = generator.normal(size=(items, width)) @ generator.normal(size=(width, width)) + 5
    return Vectors(mixed.astype(np.float32))


def test_pca_agrees_with_scikit_learn_signs_included() -> None:
    from sklearn import decomposition

    given = vectors()
    expected = decomposition.PCA(n_components=5, svd_solver="full").fit_transform(given.values.astype(np.float64))
    np.testing.assert_allclose(PCA(dimensions=5).reduce(given).values, expected, atol=1e-4)


def test_whitened_vectors_have_identity_covariance() -> None:
    made = Whitening(dimensions=12).reduce(vectors()).values
    np.testing.assert_allclose(np.cov(made.T), np.eye(12), atol=1e-4)
    np.testing.assert_allclose(made.mean(axis=0), 0, atol=1e-5)


def test_whitening_does_not_blow_up_directions_without_variance() -> None:
    given = vectors()
    flat = Vectors(np.hstack([given.values, np.ones((len(given.values), 3), dtype=np.float32)]))
    made = Whitening(dimensions=15).reduce(flat).values
    assert np.isfinite(made).all()
    assert np.abs(made[:, 12:]).max() < 1e-6


def test_more_dimensions_than_width_is_refused_with_the_cure() -> None:
    with pytest.raises(UserError, match="have width 12; set it to at most that"):
        PCA(dimensions=13).reduce(vectors())


def test_unreduced_vectors_are_unchanged() -> None:
    given = vectors()
    assert np.array_equal(Unreduced().reduce(given).values, given.values)
