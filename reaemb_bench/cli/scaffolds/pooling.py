"""A pooling of your own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reaemb_bench import Component

if TYPE_CHECKING:
    from torch import Tensor


class Example(Component):
    """The largest value of each dimension over all real tokens: say here what yours keeps."""

    def pool(self, states: Tensor, mask: Tensor, thoughts: int) -> Tensor:
        """(n, L, d), (n, L) -> (n, d). The sequence is left-padded and ends with `thoughts` thought tokens and EOS."""
        return states.masked_fill(mask.unsqueeze(-1) == 0, float("-inf")).amax(dim=1)
