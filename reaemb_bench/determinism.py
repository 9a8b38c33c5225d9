"""Which bits repeat, and the switch that makes a GPU's repeat.

On a CPU the same recipe gives the same bits on the same machine with the same packages and the same number of threads,
in any process and any order: every step draws from a seed of its own, no data are loaded in the background, and `bench
--jobs` only decides what is computed beside what. Another number of threads adds up floats in another order, which
changes their last bits.

On a GPU sums may be added up in an order that differs from run to run; `--deterministic` forbids it, at a price in
time. Between two devices, or a GPU's runs without it, numbers differ by rounding, a relative 6e-8 in float32 and 4e-3
in bfloat16 an operation, which training amplifies: compare such runs by their spread over seeds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from reaemb_bench.errors import UserError
from reaemb_bench.machine import Machine

_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""How cuBLAS lays out its scratch memory when its sums must repeat; read when torch first uses a GPU."""


@contextmanager
def repeatable(machine: Machine) -> Iterator[None]:
    """A block in which torch uses deterministic algorithms alone, where the machine settings ask for it.

    Raises UserError where an operation inside has none.
    """
    if not machine.deterministic:
        yield
        return
    os.environ.setdefault(*_WORKSPACE)
    import torch

    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        reason = str(error).partition(". ")[0]
        raise UserError(f"--deterministic: {reason}; leave the option out, or choose another component") from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
