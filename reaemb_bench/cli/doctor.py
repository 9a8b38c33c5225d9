"""`doctor` says whether this machine has what a run needs, `audit` whether held-out data reach what a recipe learns."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from packaging.requirements import Requirement
from rich.markup import escape
from typer import Option

from reaemb_bench.cli.options import DEFAULT_RECIPE, Drops, RecipeName, Sets, machine_options
from reaemb_bench.cli.screen import console, plain_table, say, show
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.recipe import Recipe, load
from reaemb_bench.core.registry import find, kinds, names
from reaemb_bench.core.store import Store
from reaemb_bench.tracking.addresses import database_file, is_server, page_of, redacted

if TYPE_CHECKING:
    from reaemb_bench.core.plan import Plan
    from reaemb_bench.evaluation.leak_test import LeakReport

_BEYOND = "beyond this test: components that open the raw files themselves, or keep the first rows that they ever saw"
_WANTED_GIGABYTES = 5
_TIMEOUT_SECONDS = 5
_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Files of the drivers of NVIDIA GPUs, of GPUs under WSL, and of AMD GPUs."""


@machine_options("device", "store", "cache", "mlflow")
def doctor(
    machine: Machine,
    compute: Annotated[bool, Option("--compute", help="Also multiply matrices on the device.")] = False,
) -> None:
    """Check Python, packages, components, device, disk, cache and MLflow; exit code 1 if something is broken.

    Examples:
    reaemb-bench doctor
    reaemb-bench doctor --compute --device cuda
    """
    wanted = importlib.metadata.metadata("reaemb-bench")["Requires-Python"]
    checks: dict[str, Callable[[], str]] = {
        "python": lambda: f"{platform.python_version()} (wanted {wanted}), {platform.platform()}",
        "packages": _packages,
        "components": _components,
        "device": lambda: _test_multiplication(machine) if compute else _device(machine),
        "store": lambda: _free_disk(machine.store.absolute()),
        "cache": lambda: _cache(machine.cache),
        "mlflow": lambda: _mlflow(machine.mlflow),
    }
    table, broken = plain_table(), False
    for name, check in checks.items():
        try:
            mark, answer = "[green]ok[/]", check()
        except UserError as error:
            mark, answer, broken = "[red]broken[/]", str(error), True
        table.add_row(mark, name, escape(answer))
    show(table)
    if broken:
        raise typer.Exit(1)


def _packages() -> str:
    requirements = map(Requirement, importlib.metadata.requires("reaemb-bench") or ())
    needed = [wanted for wanted in requirements if wanted.marker is None or wanted.marker.evaluate({"extra": ""})]
    wrong = []
    for wanted in needed:
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{wanted.name} is absent, wanted {wanted.specifier}")
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            wrong.append(f"{wanted.name} is {version}, wanted {wanted.specifier}")
    if wrong:
        raise UserError("; ".join(wrong))
    return f"{len(needed)} in their ranges"


def _components() -> str:
    wrong, count = [], 0
    for kind in kinds():
        try:
            for name in names(kind):
                count += 1
                find(kind, name)
        except UserError as error:
            wrong.append(f"{kind}: {error}")
    if wrong:
        raise UserError("; ".join(wrong))
    return f"{count} import"


def _device(machine: Machine) -> str:
    """What is known of the device without torch, which takes seconds to import."""
    gpu = any(Path(file).exists() for file in _DRIVERS) or shutil.which("nvidia-smi") is not None
    if machine.device.startswith("cuda") and not gpu:
        raise UserError(f"no GPU driver is installed, so '{machine.device}' cannot be used; say --device auto")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    driver = "a GPU driver" if gpu else "no GPU driver"
    return f"torch {importlib.metadata.version('torch')}, {cores} CPU cores, {driver}; --compute tries it out"


def _test_multiplication(machine: Machine) -> str:
    import torch

    try:
        device = machine.torch_device()
        start = time.perf_counter()
        square = torch.ones(256, 256, device=device)
        total = float((square @ square).sum())
        seconds = time.perf_counter() - start
    except (RuntimeError, AssertionError, UserError) as error:
        # Torch raises AssertionError if it was built without the device.
        raise UserError(f"{machine.device} does not compute: {' '.join(str(error).split())}") from None
    if total != 256.0**3:
        raise UserError(f"{device} computes wrong sums")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    return f"torch {torch.__version__} on {device} ({name}), a 256 x 256 product in {seconds * 1000:.1f} ms"


def _free_disk(folder: Path) -> str:
    gigabytes = shutil.disk_usage(next(parent for parent in (folder, *folder.parents) if parent.is_dir())).free / 1e9
    answer = f"{folder}, {gigabytes:.1f} GB free"
    if gigabytes < _WANTED_GIGABYTES:
        raise UserError(f"{answer}, under the {_WANTED_GIGABYTES} GB that models and vectors can take")
    return answer


def _cache(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder}, empty: the first run downloads"
    entries = []
    for entry in sorted(folder.iterdir()):
        size = sum(file.stat().st_size for file in (entry, *entry.rglob("*")) if file.is_file())
        entries.append(f"{entry.name} ({size / 1e6:.1f} MB)")
    return f"{folder}: {', '.join(entries) or 'empty'}"


def _mlflow(uri: str) -> str:
    import urllib.request

    shown, file = redacted(uri), database_file(uri)
    if not uri:
        return "tracking is off"
    if file is not None:
        if not file.exists():
            return f"{shown}, to be created by the first run"
        try:
            with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
                connection.execute("select count(*) from runs").fetchone()
        except sqlite3.Error as error:
            cure = "delete it or choose another with --mlflow"
            raise UserError(f"{shown} is not an MLflow database ({error}); {cure}") from None
        return f"{shown}, readable"
    if not is_server(uri):
        return f"{shown}, not checked"
    try:
        with urllib.request.urlopen(f"{page_of(uri).rstrip('/')}/health", timeout=_TIMEOUT_SECONDS):
            return f"{shown} answers"
    except OSError as error:
        reason = redacted(str(error), uri)
        raise UserError(f"{shown} does not answer ({reason}); start it, or run with --mlflow ''") from None


@machine_options("device", "precision", "micro_batch", "threads", "store", "cache")
def audit(
    machine: Machine,
    recipe: RecipeName = DEFAULT_RECIPE,
    sets: Sets = None,
    drops: Drops = None,
    dry: Annotated[bool, Option("--dry", help="Only read the recipe; compute nothing.")] = False,
    full: Annotated[bool, Option("--full", help="Keep all settings `steps` and `epochs` as they are.")] = False,
) -> None:
    """Show what each step reads of the held-out rows, test for leaks, and name the paper variants in use.

    The steps before the judges run three times in a temporary folder inside the store, on the first seed: unchanged,
    with all held-out items exchanged among users, and with only test items exchanged. Exits with code 1 if something
    changes that may not.

    Examples:
    reaemb-bench audit quickstart --dry
    reaemb-bench audit my_recipe.toml
    """
    from reaemb_bench.core.plan import plan
    from reaemb_bench.evaluation.leak_test import step_access
    from reaemb_bench.evaluation.paper_variants import variants_in

    loaded = load(recipe, sets or (), drops or ())
    steps = step_access(loaded)
    say(f"Audit of {loaded.title}", style="bold")
    rows = ("validation rows", "test rows")
    table = plain_table("step", "reads", "makes", *rows, "remark", right=rows)
    for step in steps:
        reads, makes = (", ".join(part.__name__ for part in parts) for parts in (step.reads, step.makes))
        shares = ["100 %" if step.divides or step.input_level >= access else "0 %" for access in (1, 2)]
        remarks = (
            (step.undeclared, f'reads more than it declares (data_access = "{step.step.data_access}")'),
            (step.divides, "divides the data"),
            (step.step.leaks, "declared leak: looks at held-out rows on purpose"),
            (step.is_judge, "judge"),
            (step.via, f"and what {', '.join(step.via)} made of held-out rows"),
        )
        remark = next((words for applies, words in remarks if applies), "")
        table.add_row(*map(escape, (step.name, reads, makes, *shares, remark)))
    show(table, "")

    if uses := variants_in(loaded):
        headings = ("paper variant", "where")
        table = plain_table(*headings, "choice", "what it is known to do", no_wrap=headings)
        for use in uses:
            choice = use.variant.choice or use.variant.component
            table.add_row(*map(escape, (use.variant.defect, use.path, choice, use.variant.effect)))
        show(table, "")
    else:
        say("no variant of the paper's released code is in use")

    if undeclared := [step.name for step in steps if step.undeclared]:
        say(f"verdict: LEAK, {', '.join(undeclared)} would read more than declared; `run` refuses such a recipe")
        raise typer.Exit(1)
    # Reports what is forbidden before anything runs, and then what is missing.
    planned = plan(loaded, loaded.seeds[0])
    if dry:
        say("verdict: no step reads more than it declares; without --dry the leak test runs too")
        return
    from reaemb_bench.experiments.forecast import check_ready

    check_ready([planned], Store(machine.store), machine)
    leak_report = _examine(loaded, full, machine)
    _print_leak_report(leak_report)
    if not leak_report.passed:
        raise typer.Exit(1)


def _examine(recipe: Recipe, full: bool, machine: Machine) -> LeakReport:
    """Run the leak test in a temporary folder inside the store."""
    from reaemb_bench.core.execute import execute
    from reaemb_bench.evaluation.leak_test import find_leaks, shorten
    from reaemb_bench.tracking.terminal import watching

    if not full:
        recipe, cuts = shorten(recipe)
        if cuts:
            say(f"shortened for the audit (--full prevents it): {', '.join(cuts)}")

    def compute(planned: Plan, store: Store) -> None:
        with watching(planned, console()) as watch:
            execute(planned, store, machine, watch)

    try:
        machine.store.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix="audit-", dir=machine.store)
    except OSError as error:
        raise UserError(
            f"the store folder {machine.store} cannot be written ({error.strerror}); choose another with --store"
        ) from None
    with folder as name:
        return find_leaks(recipe, recipe.seeds[0], Store(Path(name)), compute)


def _print_leak_report(leak_report: LeakReport) -> None:
    table = plain_table("step", "artefact", "exchanged", "what changed")
    steps: dict[str, list[str]] = {}
    leaks = []
    for verdict in leak_report.verdicts:
        steps.setdefault(verdict.outcome, []).append(verdict.step)
        of_source = f" of {escape(verdict.source)}" if verdict.source else ""
        outcome = {
            "identical": "[green]nothing[/]",
            "leak": "[red]LEAK: its bits[/]",
            "follows": f"its bits, with those{of_source}",
            "declared": f"declared leak{of_source}: not compared",
            "unrepeatable": "[yellow]its bits, but they also change on the same rows: nothing is known[/]",
        }[verdict.outcome]
        parts = verdict.parts if verdict.outcome != "declared" else ""
        table.add_row(escape(verdict.step), verdict.artifact, parts, outcome)
        if verdict.outcome == "leak":
            leaks.append(f"LEAK: {verdict.artifact} of {verdict.step} depends on {verdict.parts} items")
    show("", table)
    counts = (f"{count:,} of {total:,} {part} targets" for part, (count, total) in leak_report.exchanged.items())
    say(f"exchanged among users: {' and '.join(counts)}; {_BEYOND}")
    for line in leaks:
        say(line)
    leaking, unrepeatable, declared = (
        ", ".join(dict.fromkeys(steps.get(outcome, ()))) for outcome in ("leak", "unrepeatable", "declared")
    )
    if leaking:
        say(f"verdict: LEAK in {leaking}")
    elif unrepeatable:
        say(f"verdict: undecided, results of {unrepeatable} differ from run to run; on --device cpu they should not")
    else:
        say(f"verdict: no leak found{f' beyond the declared ones ({declared})' if declared else ''}")
