"""How alike two vectors are, the same in the losses of LRCL and in the scores of CRRL. Shapes: n vectors, d width."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

Similarity = Literal["inner-product", "cosine", "centred-cosine"]


def comparable(vectors: Tensor, similarity: Similarity, centre: Tensor | None = None) -> Tensor:
    """Vectors (..., d) whose inner products are the similarities of `vectors` (..., d).

    centre: (d,), the mean that `centred-cosine` takes away; None takes that of `vectors`. Language models put all
    their vectors near one direction; inner products measure how far a vector goes along it (the same vectors are then
    nearest to everything), centred cosines what is left without it. Adding one vector to all, or scaling all, does not
    change a centred cosine.
    """
    if similarity == "inner-product":
        return vectors
    if similarity == "centred-cosine":
        vectors = vectors - (vectors.flatten(0, -2).mean(dim=0) if centre is None else centre)
    return functional.normalize(vectors, dim=-1)
