"""A step that several processes do together, until one of them fails; a recipe in the tests names it."""

import time
from typing import ClassVar, Literal

import numpy as np
import torch

from reaemb_bench.core.artifacts import Vectors
from reaemb_bench.core.component import Step
from reaemb_bench.core.distributed import all_reduce, rank
from reaemb_bench.core.errors import UserError


class Failing(Step):
    """Adds up ones, then refuses, or never comes back, in process 1."""

    distributed: ClassVar[bool] = True

    how: Literal["raise", "hang"]
    """Which of both."""

    def run(self) -> Vectors:
        """Never gives anything back."""
        ones = torch.ones(2)
        all_reduce([ones])
        assert ones.tolist() == [2, 2]
        if rank() == 1:
            if self.how == "raise":
                raise UserError("the step is tired")
            time.sleep(600)
        all_reduce([ones])
        return Vectors(np.ones((1, 1), dtype=np.float32))
