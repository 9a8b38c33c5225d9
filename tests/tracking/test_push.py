"""`push` and `ui`: what MLflow missed comes later, once; the pages open on the right database."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Said
from tests.helpers.mlflow_runs import children, runs_in

Command = Callable[..., Said]


@pytest.mark.slow
def test_what_mlflow_missed_is_pushed_once(
    command: Command, toy_recipe: Path, tmp_path: Path, empty_database: bytes
) -> None:
    database = tmp_path / "mlflow.db"
    uri = f"sqlite:///{database}"
    database.write_text("this is no database", encoding="utf-8")
    said = command("run", toy_recipe, "--set", "seeds=[1, 2]", "--mlflow", uri)
    assert said.code == 0, said.err
    assert said.out.count("warning") == 1
    assert "later: reaemb-bench push toys" in said.out
    early = command("push", "toys", "--mlflow", uri)
    assert early.code == 2
    assert "cannot be reached; push again when it can" in early.err
    database.write_bytes(empty_database)

    pushed = command("push", "toys", "--mlflow", uri)
    assert pushed.code == 0, pushed.out + pushed.err
    assert "toys: pushed, 2 of 2 seeds new" in pushed.out
    runs = runs_in(uri, "toys")
    (above,) = children(runs, None)
    seeds = children(runs, above)
    assert [run.data.tags["seed"] for run in seeds] == ["1", "2"]
    assert all(run.info.status == "FINISHED" for run in runs)
    assert all(run.data.metrics["test full/hr_at_10"] > 0 for run in runs)
    files = {file.name for file in (tmp_path / "mlruns" / seeds[0].info.run_id / "artifacts").iterdir()}
    assert files == {"recipe.toml", "table.md", "report.html", "steps.csv", "rank"}

    again = command("push", "--all", "--mlflow", uri)
    assert "toys: already there" in again.out
    assert len(runs_in(uri, "toys")) == len(runs)


def test_a_run_whose_code_changed_is_refused_and_the_others_go_on(
    command: Command, toy_recipe: Path, tmp_path: Path, uri: str
) -> None:
    plugin = tmp_path / "my_steps.py"
    plugin.write_text(
        "from tests.helpers.toy_steps import Embed as Mine\n\n\nclass Embed(Mine):\n    pass\n", encoding="utf-8"
    )
    other = tmp_path / "changing.toml"
    other.write_text(f"extends = 'toys.toml'\n[embed]\nuse = '{plugin}:Embed'\n", encoding="utf-8")
    for recipe in (other, toy_recipe):
        assert command("run", recipe).code == 0
    ran = tmp_path / "ran"
    plugin.write_text(f"{plugin.read_text(encoding='utf-8')}\nopen({str(ran)!r}, 'w')\n", encoding="utf-8")
    said = command("push", "--all", "--mlflow", uri)
    assert said.code == 1
    assert "changing: not pushed, " in said.out
    assert "my_steps.py is not imported: a stored result names it" in said.out
    assert not ran.exists()
    assert "toys: pushed" in said.out
    assert [run.data.tags["method"] for run in children(runs_in(uri, "toys"), None)] == ["toys"]


def test_a_run_whose_results_are_lost_is_refused(command: Command, toy_recipe: Path, uri: str) -> None:
    command("run", toy_recipe)
    for manifest in Path(".reaemb-bench/store/results").glob("*/manifest.json"):
        manifest.unlink()
    said = command("push", "toys", "--mlflow", uri)
    assert said.code == 1
    assert "not pushed, its results are no longer in the store" in said.out


@pytest.mark.parametrize("words", [[], ["toys", "--all"]])
def test_push_wants_names_or_all(words: list[str], command: Command) -> None:
    said = command("push", *words, "--mlflow", "sqlite:///mlflow.db")
    assert said.code == 2
    assert "name the runs to push, or say --all" in said.err


def test_models_are_copied_where_the_command_says_so(
    command: Command, toy_recipe: Path, tmp_path: Path, uri: str
) -> None:
    assert command("run", toy_recipe, "--mlflow", uri, "--log-models").code == 0
    (parent,) = children(runs_in(uri, "toys"), None)
    assert (tmp_path / "mlruns" / parent.info.run_id / "artifacts" / "train" / "ranker").is_dir()


def test_doctor_shows_no_password(command: Command) -> None:
    said = command("doctor", "--mlflow", "postgresql://me:secret@host/runs")
    assert "postgresql://***@host/runs" in said.out
    assert "secret" not in said.out


def test_ui_refuses_a_server_and_names_its_page(command: Command) -> None:
    said = command("ui", "--mlflow", "http://me:secret@host:5000")
    assert said.code == 2
    assert "open http://host:5000 in a browser" in said.err
    assert "secret" not in said.err


def test_ui_refuses_where_nothing_is_tracked(command: Command, tmp_path: Path) -> None:
    said = command("ui", "--mlflow", "sqlite:///mlflow.db")
    assert said.code == 2
    assert f"{tmp_path / 'mlflow.db'} does not exist" in said.err


def test_ui_refuses_a_port_that_is_taken(command: Command, uri: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = command("ui", "--mlflow", uri, "--port", port)
    assert said.code == 2
    assert f"port {port} cannot be used" in said.err


@pytest.mark.slow
def test_ui_prints_the_link_of_each_data_set_once_the_server_answers(
    command: Command, toy_recipe: Path, uri: str
) -> None:
    assert command("run", toy_recipe, "--mlflow", uri).code == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "reaemb_bench", "ui", "--mlflow", uri, "--port", str(port)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        link = next(line for line in process.stdout if line.startswith("  http"))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as page:
            assert page.status == 200
        process.terminate()
        process.communicate()
    assert link.endswith("/runs?workflowType=machine_learning&viewStateShareKey=reaemb-bench  reaemb-bench/toys\n")
    with socket.socket() as gone:
        assert gone.connect_ex(("127.0.0.1", port)) != 0, "the server ends with the command"


def test_a_recipe_without_judges_is_tracked_without_a_word(command: Command, toy_recipe: Path, uri: str) -> None:
    said = command("run", toy_recipe, "--drop", "rank", "--mlflow", uri)
    assert said.code == 0, said.err
    assert "warning" not in said.out + said.err
