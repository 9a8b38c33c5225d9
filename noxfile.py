"""Checks of this project: `nox -s tests`, `quick`, `lint`, `types`, `quickstart`, `faults`,
`architectures`, `security`, `ui`."""

from __future__ import annotations

import os
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True

ROOT = Path(__file__).parent
TORCH = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))


def _install(session: nox.Session) -> None:
    # With --no-venv the calling environment is used; nothing may be installed over its packages.
    if not isinstance(session.virtualenv, nox.virtualenv.PassthroughEnv):
        session.install(TORCH)
        session.install("-c", "constraints.txt", "-e", ".[dev]")


def _pytest(session: nox.Session, *options: str) -> None:
    # One process a core and one thread a process: twice as quick as one process with a thread a core. Files stay
    # together, because their tests share fixtures that take seconds.
    parallel = ("-n", "auto", "--dist", "loadfile")
    session.run("python", "-m", "pytest", *parallel, *options, *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def tests(session: nox.Session) -> None:
    """All tests; arguments after -- go to pytest."""
    _install(session)
    _pytest(session)


@nox.session
def quick(session: nox.Session) -> None:
    """What a change usually breaks, in about two minutes on two cores: all tests that are not marked `slow`."""
    _install(session)
    _pytest(session, "-m", "not slow and not faults and not ui and not architectures")


@nox.session
def lint(session: nox.Session) -> None:
    """Lint, format, spelling, and the word list that keeps the English plain."""
    _install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("typos")
    session.run("python", "-m", "tests.plain_english")


@nox.session
def types(session: nox.Session) -> None:
    """Type check of the package and of the baselines' components, whose files all have the same name."""
    _install(session)
    session.run("mypy")
    session.run("mypy", "--explicit-package-bases", "baselines")


@nox.session
def security(session: nox.Session) -> None:
    """Known vulnerabilities of the packages in constraints.txt; asks the OSV database, so it needs the network."""
    session.install("pip-audit>=2.9,<3")
    constraints = str(ROOT / "constraints.txt")
    session.run("pip-audit", "-r", constraints, "--no-deps", "--disable-pip", "--vulnerability-service", "osv")


@nox.session
def quickstart(session: nox.Session) -> None:
    """The quickstart recipe through the real command line, twice: the second run finds everything cached."""
    _install(session)
    recipe = str(ROOT / "recipes" / "quickstart.toml")
    with session.chdir(session.create_tmp()):
        session.run("python", "-c", "import shutil; shutil.rmtree('.reaemb-bench', ignore_errors=True)")
        session.run("reaemb-bench", "run", recipe)
        printed = session.run("reaemb-bench", "run", recipe, silent=True)
        session.log(str(printed))
        if "everything was cached" not in str(printed):
            session.error("the second run did not find everything cached")


@nox.session
def faults(session: nox.Session) -> None:
    """Every fault that the tests know, not a sample of them; a summary below the tests counts them."""
    _install(session)
    session.run("python", "-m", "pytest", "-m", "faults", "tests/faults", *session.posargs)


@nox.session
def architectures(session: nox.Session) -> None:
    """Every architecture of docs/models.md as a tiny random model: its vectors, alone and in batches, or one line."""
    _install(session)
    _pytest(session, "-m", "architectures", "tests/encoder/test_architectures.py")


@nox.session
def ui(session: nox.Session) -> None:
    """MLflow's pages in a real browser (the machine's Chromium) from a real server; screenshots are written to
    REAEMB_BENCH_SCREENSHOTS or to the session's temporary folder.
    """
    _install(session)
    if not isinstance(session.virtualenv, nox.virtualenv.PassthroughEnv):
        session.install("-c", "constraints.txt", "-e", ".[ui-test]")
    # Absolute, because every test changes into its own folder.
    folder = Path(os.environ.get("REAEMB_BENCH_SCREENSHOTS") or session.create_tmp()).resolve()
    environment = {"REAEMB_BENCH_SCREENSHOTS": str(folder)}
    session.run("python", "-m", "pytest", "-m", "ui", "tests/ui", *session.posargs, env=environment)
