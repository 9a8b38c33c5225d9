"""Several processes that run one recipe together, started by `torchrun`.

Process 0 plans, writes to the store, the terminal and MLflow, and runs every step. The other processes join it in the
steps that declare `distributed = True`, where each does its share of the work, and wait in between. All processes must
see the same store folder. A process that was not started by torchrun is alone: it is process 0 of 1.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine

if TYPE_CHECKING:
    import torch
    from torch import Tensor


T = TypeVar("T")

_STARTED_BY_TORCHRUN = "TORCHELASTIC_RUN_ID"
_AS_LONG_AS_IT_TAKES = timedelta(days=365)

_patient: Any = None
"""The process group of messages that may be long in coming, such as which step is next; set by `joined`."""


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ["RANK"]) if _STARTED_BY_TORCHRUN in os.environ else 0


def world_size() -> int:
    """How many processes run the recipe together, on all hosts."""
    return int(os.environ["WORLD_SIZE"]) if _STARTED_BY_TORCHRUN in os.environ else 1


def is_first() -> bool:
    """Whether this is process 0, the only one that writes."""
    return rank() == 0


def share(things: Sequence[T]) -> Sequence[T]:
    """What this process does of a list of equal pieces of work: every count()-th, from place rank() on."""
    return things[rank() :: world_size()]


def all_reduce(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over all processes, in place; every process must call it with the same shapes.

    Raises UserError where another process is gone or does not answer in time.
    """
    if world_size() == 1 or not tensors:
        return
    import torch
    from torch import distributed

    # One message: many small ones would cost a round trip each.
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    with _in_touch():
        distributed.all_reduce(flat)
    with torch.no_grad():
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def all_reduce_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace the gradient of each parameter by its sum over all processes; a missing one counts as zero.

    Alone, nothing is changed. Raises UserError as `add_up` does.
    """
    if world_size() == 1:
        return
    import torch

    gradients = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    all_reduce(gradients)


def broadcast(*numbers: int) -> list[int]:
    """The numbers that process 0 gives, in every process; waits for process 0 as long as it lives.

    Every process must give equally many.
    """
    if world_size() == 1:
        return list(numbers)
    import torch
    from torch import distributed

    told = torch.tensor(numbers, dtype=torch.int64)
    with _in_touch():
        distributed.broadcast(told, src=0, group=_patient)
    return [int(number) for number in told]


@contextmanager
def process_group(machine: Machine, timeout: float) -> Iterator[Machine]:
    """Connect the processes that torchrun started; gives the machine settings of this one (its own GPU).

    timeout: seconds without an answer, inside a step, after which the others count as lost. Where several processes
    fail, the first says why and the others leave without a word. Raises UserError where a process has no GPU.
    """
    if world_size() == 1:
        yield machine
        return
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    global _patient
    machine = _placed(machine)
    backend = "cpu:gloo,cuda:nccl" if machine.torch_device().type == "cuda" else "gloo"
    # Otherwise a process that waits in vain on a GPU is aborted without an error that could be explained.
    os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
    limit = timedelta(seconds=timeout)
    with _in_touch():
        meeting, number, size = next(rendezvous("env://", timeout=limit))
        distributed.init_process_group(backend, store=meeting, rank=number, world_size=size, timeout=limit)
        _patient = distributed.new_group(backend="gloo", timeout=_AS_LONG_AS_IT_TAKES)
    try:
        yield machine
    except BaseException as error:
        if not _fails_first(meeting):
            raise SystemExit(1) from None
        if isinstance(error, UserError):
            raise UserError(f"process {rank()} of {world_size()}: {error}") from error
        raise
    distributed.destroy_process_group()


def _placed(machine: Machine) -> Machine:
    """The machine settings with this process's own GPU, where the processes use GPUs."""
    if machine.torch_device().type != "cuda":
        return machine
    import torch

    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= there:
        raise UserError(f"torchrun starts more processes than there are GPUs; say --nproc-per-node {there}")
    torch.cuda.set_device(local)
    return machine.model_copy(update={"device": f"cuda:{local}"})


def _fails_first(meeting: Any) -> bool:
    try:
        return int(meeting.add("reaemb-bench/failures", 1)) == 1
    except RuntimeError:
        # Nobody is left to ask: rather one line too many than none.
        return True


@contextmanager
def _in_touch() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # Gloo says where in its source it noticed, and adds advice.
        reason = re.sub(r"^\[\S+\] ", "", str(error).strip().splitlines()[0]).partition(". ")[0]
        raise UserError(
            f"no answer from another process: it has ended, or took longer than --process-timeout ({reason})"
        ) from error
