"""MLflow's pages in a real browser: runs are compared and read without any explanation. `nox -s ui` runs these."""

from __future__ import annotations

import os
import re
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
from tests.helpers.mlflow_runs import runs_in
from tests.helpers.stored_runs import write_recipes

pytestmark = pytest.mark.ui

Command = Callable[..., Said]

_SECONDS = 180
_METHODS = re.compile("^(good|poor|popularity|random)$")
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


def test_the_better_on_the_tail_is_seen_at_once_two_runs_are_compared_and_one_is_read(
    command: Command, tmp_path: Path, uri: str, screenshots: Path
) -> None:
    write_recipes(tmp_path)
    for words in (["poor.toml"], ["good.toml", "--set", "seeds=[1, 2]"]):
        assert command("run", *words, "--mlflow", uri).code == 0
    port = _free_port()
    words = ["reaemb_bench", "ui", "--mlflow", uri, "--port", str(port)]
    with _serving(words, tmp_path, port) as address, _browser(address) as page:
        page.goto(_link(tmp_path / "server.log", address), wait_until="commit")
        _compare(page, screenshots)
        page.goto(_link(tmp_path / "server.log", address), wait_until="commit")
        _read(page, screenshots)


def _link(log: Path, address: str) -> str:
    """The link that `ui` prints once the server answers."""
    for _ in range(_SECONDS):
        if links := [word for word in log.read_text(encoding="utf-8").split() if word.startswith(f"{address}/#")]:
            return links[0]
        time.sleep(1)
    raise AssertionError(log.read_text(encoding="utf-8"))


def _compare(page: Any, screenshots: Path) -> None:
    page.get_by_label(_TICK).first.wait_for()
    page.get_by_text("1 NDCG_at_10/tail").first.wait_for()
    page.screenshot(path=screenshots / "runs.png")
    # One row a method and a floor, the best first, and no click so far.
    assert page.get_by_role("link", name=_METHODS).all_inner_texts() == ["good", "popularity", "poor", "random"]
    for _ in range(2):
        page.get_by_label(_TICK).first.click()
    page.get_by_test_id("runs-compare-button").click()
    page.get_by_text("1 NDCG_at_10/tail", exact=True).first.wait_for()
    lines = page.locator("body").inner_text().splitlines()
    assert "Comparing 2 Runs from 1 Experiment" in lines
    metrics = lines[lines.index("Metrics") :]
    first = [line for line in metrics if "/" in line][:3]
    assert first == ["1 NDCG_at_10/all", "1 NDCG_at_10/head", "1 NDCG_at_10/tail"]
    page.screenshot(path=screenshots / "compare.png")


def _read(page: Any, screenshots: Path) -> None:
    page.get_by_role("link", name="good", exact=True).first.click()
    page.get_by_text("rank.mean").first.wait_for()
    page.screenshot(path=screenshots / "run.png")
    assert "200 test users" in page.locator("body").inner_text(), "the table is the run's description"
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("table.md").first.click()
    page.get_by_role("columnheader", name="NDCG@10").first.wait_for()
    page.screenshot(path=screenshots / "table.png")
    page.get_by_text("report.html").first.click()
    page.frame_locator("iframe").get_by_text("recipe of good").first.wait_for()
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
    assert [run.info.run_name for run in runs] == ["toys"]
    assert {file.name for file in (tmp_path / "files").rglob("*.*")} >= {"table.md", "report.html", "ranks.parquet"}
