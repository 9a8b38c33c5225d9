"""Embed many prompts for use outside training."""

from __future__ import annotations

import numpy as np
import torch

from reaemb_bench.artifacts import Float32
from reaemb_bench.context import Context, Tick
from reaemb_bench.encoding.batching import by_length, micro_batch
from reaemb_bench.encoding.model import ThoughtModel
from reaemb_bench.errors import UserError


def embed_all(model: ThoughtModel, rows: list[list[int]], context: Context) -> Float32:
    """Vectors (rows, d) in the order of `rows`. Raises UserError where one is not finite."""
    made = np.empty((len(rows), model.width), dtype=np.float32)
    done = 0
    with torch.inference_mode():
        for group in by_length(rows, micro_batch(context.machine)):
            places = group.tolist()
            vectors = model.embed(model.tokens([rows[place] for place in places]))
            made[places] = vectors.float().cpu().numpy()
            done += len(places)
            context.report(Tick(done, len(rows), "items"))
    if not np.isfinite(made).all():
        bad = int(np.flatnonzero(~np.isfinite(made).all(axis=1))[0])
        raise UserError(f"the vector of item {bad} is not finite; train with a lower learning rate or in float32")
    context.note({"tokens": sum(len(row) + model.thoughts + 1 for row in rows)})
    return made
