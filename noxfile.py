"""Checks of this project: `nox -s tests`, `lint`, `types`, `quickstart`, `security`."""

from __future__ import annotations

import os
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True

ROOT = Path(__file__).parent
TORCH = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))


def _install(session: nox.Session) -> None:
    # With --no-venv the packages of the calling environment are used; nothing must be installed over them.
    if not isinstance(session.virtualenv, nox.virtualenv.PassthroughEnv):
        session.install(TORCH)
        session.install("-c", "constraints.txt", "-e", ".[dev]")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests; arguments after -- go to pytest."""
    _install(session)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Lint, format and spelling."""
    _install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("typos")


@nox.session
def types(session: nox.Session) -> None:
    """Type check of the package and of the baselines' components, which all lie in files of the same name."""
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
    """Every fault that the tests know, not a sample of them; the counts stand below."""
    _install(session)
    session.run("python", "-m", "pytest", "-m", "faults", "tests/faults", *session.posargs)


@nox.session
def ui(session: nox.Session) -> None:
    """MLflow's pages in a real browser, the machine's Chromium, and a real server; screenshots lie in the session's
    temporary folder, or in REAEMB_BENCH_SCREENSHOTS.
    """
    _install(session)
    if not isinstance(session.virtualenv, nox.virtualenv.PassthroughEnv):
        session.install("-c", "constraints.txt", "-e", ".[ui-test]")
    # The tests work in folders of their own, where a relative path would lead elsewhere.
    folder = Path(os.environ.get("REAEMB_BENCH_SCREENSHOTS") or session.create_tmp()).resolve()
    environment = {"REAEMB_BENCH_SCREENSHOTS": str(folder)}
    session.run("python", "-m", "pytest", "-m", "ui", "tests/ui", *session.posargs, env=environment)
