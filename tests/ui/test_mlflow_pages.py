"""MLflow's pages in a real browser: runs are compared and read without any explanation. `nox -s ui` runs these."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Said
from tests.helpers.mlflow_runs import children, runs_in

pytestmark = pytest.mark.ui

Command = Callable[..., Said]

_SECONDS = 180
_TICK = "Press Space to toggle row selection (unchecked)"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def _serving(words: list[str], folder: Path, port: int) -> Iterator[str]:
    """A server in its own process, from when it answers to the end of the block; gives its address."""
    log = folder / "server.log"
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen([sys.executable, "-m", *words], cwd=folder, stdout=stream, stderr=stream)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(_SECONDS):
            time.sleep(1)
            assert process.poll() is None, log.read_text(encoding="utf-8")
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=5):  # noqa: S310 - a server of this test
                    break
            except (urllib.error.URLError, OSError):
                continue
        yield address
    finally:
        process.terminate()
        process.wait(timeout=_SECONDS)


@contextmanager
def _browser(address: str) -> Iterator[Any]:
    """A page of the machine's Chromium that reaches this address alone."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra ui-test is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(_SECONDS * 1000)
        here = address.removeprefix("http://")
        page.route("**/*", lambda route: route.continue_() if here in route.request.url else route.abort())
        yield page
        browser.close()


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """Where pictures of the pages go."""
    folder = Path(os.environ.get("REAEMB_BENCH_SCREENSHOTS") or tmp_path / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_two_runs_are_compared_and_one_is_read(
    command: Command, toy_recipe: Path, tmp_path: Path, uri: str, screenshots: Path
) -> None:
    for rate in ("0.1", "0.2"):
        assert command("run", toy_recipe, "--mlflow", uri, "--set", f"train.rate={rate}").code == 0
    port = _free_port()
    words = ["reaemb_bench", "ui", "--mlflow", uri, "--port", str(port)]
    with _serving(words, tmp_path, port) as address, _browser(address) as page:
        said = (tmp_path / "server.log").read_text(encoding="utf-8")
        start = next(word for word in said.split() if word.startswith(address))
        page.goto(start, wait_until="commit")
        _compare(page, screenshots)
        page.goto(start, wait_until="commit")
        _read(page, screenshots)


def _compare(page: Any, screenshots: Path) -> None:
    page.get_by_label(_TICK).first.wait_for()
    page.screenshot(path=screenshots / "runs.png")
    for rate in ("0.1", "0.2"):
        assert page.get_by_role("link", name=f"toys (train.rate={rate}), seed 42").count() == 1
    for _ in range(2):
        page.get_by_label(_TICK).first.click()
    page.get_by_test_id("runs-compare-button").click()
    metric = page.get_by_text("test/full/ndcg_at_10/tail", exact=True).first
    metric.wait_for()
    shown = page.locator("body").inner_text()
    assert "Comparing 2 Runs" in shown
    (rates,) = [line.split("\t")[1:] for line in shown.splitlines() if line.startswith("train.rate\t")]
    assert sorted(rates) == ["0.1", "0.2"]
    page.screenshot(path=screenshots / "compare.png")
    metric.scroll_into_view_if_needed()
    page.screenshot(path=screenshots / "compare_metrics.png")


def _read(page: Any, screenshots: Path) -> None:
    page.get_by_role("link", name="toys (train.rate=0.1), seed 42").first.click()
    page.get_by_text("train.rate").first.wait_for()
    page.screenshot(path=screenshots / "run.png")
    assert "6 test users" in page.locator("body").inner_text(), "the table is the run's description"
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("table.md").first.click()
    page.get_by_role("columnheader", name="NDCG@10", exact=True).first.wait_for()
    page.screenshot(path=screenshots / "table.png")
    page.get_by_text("report.html").first.click()
    page.frame_locator("iframe").get_by_text("recipe of toys").first.wait_for()
    page.screenshot(path=screenshots / "report.png")


def test_a_server_takes_runs_and_no_password_is_shown(command: Command, toy_recipe: Path, tmp_path: Path) -> None:
    port = _free_port()
    words = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{tmp_path}/remote.db", "--artifacts-destination", f"{tmp_path}/files"]
    uri = f"http://me:secret@127.0.0.1:{port}"
    away = command("run", toy_recipe, "--mlflow", uri)
    assert away.code == 0, away.err
    assert "later: reaemb-bench push toys" in away.out
    assert "secret" not in away.out + away.err
    with _serving(words, tmp_path, port):
        pushed = command("push", "toys", "--mlflow", uri)
        assert pushed.code == 0, pushed.out + pushed.err
        assert "already there" in command("push", "toys", "--mlflow", uri).out
        runs = runs_in(uri, "toys")
    (parent,) = children(runs, None)
    assert len(children(runs, parent)) == 4
    assert {file.name for file in (tmp_path / "files").rglob("*.*")} >= {"table.md", "report.html", "ranks.parquet"}
