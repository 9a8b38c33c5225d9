"""Several processes that run one recipe together, started by `torchrun`.

Process 0 plans, writes to the store, the terminal and MLflow, and runs every step. The other processes join it in the
steps that declare `distributed = True`, do their share of the work there, and wait in between. All processes must
see the same store folder. A process that torchrun did not start is process 0 of 1.
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

_without_timeout: Any = None
"""The process group of messages that may take hours to come, such as which step is next; set by `process_group`."""


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
    """This process's share of a list of equal pieces of work: every world_size()-th, from position rank() on."""
    return things[rank() :: world_size()]


def all_reduce(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over all processes, in place; every process must call it with the same shapes.

    Raises UserError if another process has ended or does not answer in time.
    """
    if world_size() == 1 or not tensors:
        return
    import torch
    from torch import distributed

    # One message: many small ones would cost a round trip each.
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    with _lost_processes_named():
        distributed.all_reduce(flat)
    with torch.no_grad():
        for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))


def all_reduce_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace the gradient of each parameter by its sum over all processes; a missing one counts as zero.

    A process alone keeps its gradients as they are. Raises UserError as `all_reduce` does.
    """
    if world_size() == 1:
        return
    gradients = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = parameter.new_zeros(parameter.shape)
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

    message = torch.tensor(numbers, dtype=torch.int64)
    with _lost_processes_named():
        distributed.broadcast(message, src=0, group=_without_timeout)
    return list(map(int, message))


@contextmanager
def process_group(machine: Machine, timeout: float) -> Iterator[Machine]:
    """Connect the processes that torchrun started; gives the machine settings of this one (its own GPU).

    timeout: seconds without an answer, inside a step, after which the others count as lost. If several processes
    fail, the first says why and the others end without a message. Raises UserError if a process has no GPU.
    """
    global _without_timeout
    if world_size() == 1:
        yield machine
        return
    import torch
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    backend, limit = "gloo", timedelta(seconds=timeout)
    if machine.torch_device().type == "cuda":
        backend = "cpu:gloo,cuda:nccl"
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise UserError(f"torchrun starts more processes than there are GPUs; say --nproc-per-node {gpus}")
        torch.cuda.set_device(local)
        machine = machine.model_copy(update={"device": f"cuda:{local}"})
    # Otherwise a process that waits in vain on a GPU is aborted without an error that could be explained.
    os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
    with _lost_processes_named():
        shared, number, size = next(rendezvous("env://", timeout=limit))
        distributed.init_process_group(backend, store=shared, rank=number, world_size=size, timeout=limit)
        _without_timeout = distributed.new_group(backend="gloo", timeout=timedelta(days=365))
    try:
        yield machine
    except BaseException as error:
        try:
            failed_first = int(shared.add("reaemb-bench/failures", 1)) == 1
        except RuntimeError:
            # The host of the shared counter has ended too: better one line too many than none.
            failed_first = True
        if not failed_first:
            raise SystemExit(1) from None
        if isinstance(error, UserError):
            raise UserError(f"process {rank()} of {world_size()}: {error}") from error
        raise
    distributed.destroy_process_group()


@contextmanager
def _lost_processes_named() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # Gloo puts the place in its source before the reason, and advice after it.
        reason = re.sub(r"^\[\S+\] ", "", str(error).strip().splitlines()[0]).partition(". ")[0]
        raise UserError(
            f"no answer from another process: it has ended, or took longer than --process-timeout ({reason})"
        ) from error
