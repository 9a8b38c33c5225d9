"""Judge a trained recommender by the test targets."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from reaemb_bench.artifacts import Corpus, Holdout, Ranker, Ranks
from reaemb_bench.component import Sight, Step
from reaemb_bench.context import Context


class Rank(Step):
    """Rank each user's test target against the whole catalogue and against the stored sample."""

    sees: ClassVar[Sight] = "test"

    top: int = Field(default=10, ge=0)
    """Length of the lists of recommended items that are kept, for coverage, Gini index and the like; 0 keeps none."""

    def run(self, corpus: Corpus, holdout: Holdout, ranker: Ranker, context: Context) -> Ranks:
        """One row a test user. Raises UserError where a score is not finite."""
        from reaemb_bench.evaluation.ranking import rank_targets
        from reaemb_bench.heads.scoring import open_ranker

        return rank_targets(
            open_ranker(ranker, context.machine),
            holdout.histories,
            holdout.users,
            holdout.targets,
            holdout.candidates,
            popularity=corpus.popularity,
            top=self.top,
            report=context.report,
        )
