"""Cells as tasks of a Ray cluster, all of whose machines see the store's folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from reaemb_bench.bench.cell import Answer, Message, compute, message
from reaemb_bench.bench.grid import Task
from reaemb_bench.bench.processes import Say
from reaemb_bench.errors import UserError
from reaemb_bench.machine import Machine
from reaemb_bench.workers import share_of_threads


def on_ray(tasks: Sequence[Task], machine: Machine, jobs: int, say: Say) -> Iterator[tuple[Task, Answer]]:
    """Each task with its answer, as they finish; at most `jobs` are under way at once.

    RAY_ADDRESS names a cluster; without it Ray starts on this machine. A task whose process dies is tried once more;
    one takes a GPU where the cluster has any. Raises UserError where Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray: Ray is not installed; pip install 'reaemb-bench[ray]'") from None
    if not ray.is_initialized():
        ray.init(num_cpus=None if os.environ.get("RAY_ADDRESS") else jobs, include_dashboard=False, log_to_driver=False)
    threads = share_of_threads(machine, jobs)
    limits = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    remote = ray.remote(
        num_cpus=1,
        num_gpus=1 if ray.cluster_resources().get("GPU") else 0,
        max_retries=1,
        runtime_env={"env_vars": limits},
    )(_compute)
    waiting = list(reversed(tasks))
    under_way: dict[Any, Task] = {}
    try:
        while waiting or under_way:
            while waiting and len(under_way) < jobs:
                task = waiting.pop()
                say(task, "handed to Ray")
                under_way[remote.remote(message(task, machine))] = task
            (ended,), _ = ray.wait(list(under_way), num_returns=1)
            task = under_way.pop(ended)
            try:
                answer = ray.get(ended)
            except ray.exceptions.RayError as error:
                answer = Answer(f"its process died twice ({type(error).__name__})")
            yield task, answer
    finally:
        ray.shutdown()


def _compute(sent: Message) -> Answer:
    return compute(sent, lambda line: None)
