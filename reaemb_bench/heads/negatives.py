"""Negatives for a batch at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reaemb_bench.artifacts import Int64, Sequences


@dataclass(frozen=True)
class Untouched:
    """Draws uniform items that a user never touched.

    codes: sorted user · items + item of every distinct pair; touched: distinct items of each user, (users,).
    """

    items: int
    codes: Int64
    touched: Int64

    @classmethod
    def by(cls, sequences: Sequences, items: int) -> Untouched:
        """Prepare for the users of `sequences`."""
        codes = np.unique(sequences.owners * items + sequences.items)
        touched = np.bincount(codes // items, minlength=sequences.users)
        # A search may end behind the last pair; no pair has this code.
        return cls(items, np.append(codes, np.iinfo(np.int64).max), touched)

    def draw(self, owners: Int64, count: int, generator: np.random.Generator) -> Int64:
        """(positions, count) items that the owner of each position never touched.

        A user who touched every item gets uniform ones, for there is no other choice.
        """
        drawn = generator.integers(self.items, size=(len(owners), count))
        rows = np.flatnonzero(self.touched[owners] < self.items)
        while len(rows):
            wanted = owners[rows, None] * self.items + drawn[rows]
            found = self.codes[np.searchsorted(self.codes, wanted)] == wanted
            again = found.any(axis=1)
            rows, found = rows[again], found[again]
            drawn[rows] = np.where(found, generator.integers(self.items, size=found.shape), drawn[rows])
        return drawn
