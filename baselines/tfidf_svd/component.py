"""Item vectors from word counts: TF-IDF, then a truncated singular value decomposition."""

from __future__ import annotations

import numpy as np
from pydantic import Field
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from reaemb_bench.core.artifacts import Corpus, Vectors
from reaemb_bench.core.component import Step
from reaemb_bench.core.errors import UserError


class TfidfSvd(Step):
    """Latent semantic analysis of the item texts (Deerwester et al., 1990), by scikit-learn."""

    dimensions: int = Field(default=256, ge=1)
    """Singular vectors kept; below the number of items and of words."""
    minimum_items: int = Field(default=1, ge=1)
    """Words of fewer items are left out."""

    def run(self, corpus: Corpus) -> Vectors:
        """(items, dimensions): from word counts, ignoring order and upper case.

        Raises UserError if there are too few items or words.
        """
        counter = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", min_df=self.minimum_items)
        try:
            weights = counter.fit_transform(corpus.texts)
        except ValueError as error:
            raise UserError(f"TF-IDF finds no words ({error}); lower minimum_items or give the items texts") from None
        if self.dimensions >= min(weights.shape):
            items, words = weights.shape
            raise UserError(
                f"dimensions = {self.dimensions} must be below the {items} items and the {words} words; lower it"
            )
        # ARPACK starts from a random vector and ends at the exact decomposition.
        reduced = TruncatedSVD(self.dimensions, algorithm="arpack", random_state=0).fit_transform(weights)
        return Vectors(np.ascontiguousarray(reduced, dtype=np.float32))
