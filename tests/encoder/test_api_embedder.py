"""Vectors from a server: each text is asked for once, and errors, limits and interruptions cost nothing more."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reaemb_bench.core import artifacts
from reaemb_bench.core.artifacts import Corpus, Float32, Vectors
from reaemb_bench.core.errors import RecipeError, UserError
from reaemb_bench.core.registry import build
from reaemb_bench.encoder import api_embedder
from tests.conftest import Said
from tests.helpers.encoders import context, corpus

KEY = "sk-secret-0123456789"
ITEMS = 20


def vector(text: str, width: int = 6) -> list[float]:
    """What the server computes: different for different texts."""
    return np.random.default_rng(list(text.encode())).normal(size=width).astype(np.float32).tolist()


class Server(ThreadingHTTPServer):
    """A server of embeddings that follows a script, one entry a request, and then answers well.

    paid: how often each text was answered. asked: headers and bodies of all requests.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Callable[[Handler, dict[str, Any]], None]] = []
        self.paid: Counter[str] = Counter()
        self.asked: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.taking = threading.Lock()
        self.meeting: threading.Barrier | None = None
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.taking:
            self.server.asked.append(({name.lower(): value for name, value in self.headers.items()}, body))
            act = self.server.script.pop(0) if self.server.script else well
        if self.server.meeting is not None:
            self.server.meeting.wait(timeout=20)
        act(self, body)

    def answer(self, rows: list[dict[str, Any]], texts: list[str]) -> None:
        with self.server.taking:
            self.server.paid.update(texts)
        usage = {"prompt_tokens": sum(len(text.split()) for text in texts), "total_tokens": 0}
        self.send(200, {"object": "list", "data": rows, "model": "small", "usage": usage})

    def send(self, status: int, content: Any, **headers: str) -> None:
        encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if isinstance(content, bytes) else "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, *_: Any) -> None: ...


def rows_of(body: dict[str, Any], width: int = 6) -> list[dict[str, Any]]:
    return [
        {"object": "embedding", "index": number, "embedding": vector(text, body.get("dimensions", width))}
        for number, text in enumerate(body["input"])
    ]


def well(handler: Handler, body: dict[str, Any]) -> None:
    """All vectors, the last first: only their index says whose they are."""
    handler.answer(rows_of(body)[::-1], body["input"])


def status(number: int, message: str = "no", **headers: str) -> Callable[[Handler, dict[str, Any]], None]:
    def act(handler: Handler, body: dict[str, Any]) -> None:
        handler.send(number, {"error": {"message": message}}, **headers)

    return act


def hang(handler: Handler, body: dict[str, Any]) -> None:
    handler.server.closing.wait(timeout=30)


def few(handler: Handler, body: dict[str, Any]) -> None:
    handler.answer(rows_of(body)[1:], [])


def twice(handler: Handler, body: dict[str, Any]) -> None:
    handler.answer([*rows_of(body)[:-1], rows_of(body)[0]], [])


def uneven(handler: Handler, body: dict[str, Any]) -> None:
    handler.answer([*rows_of(body)[:-1], {**rows_of(body)[-1], "embedding": [1.0, 2.0]}], [])


def wider(handler: Handler, body: dict[str, Any]) -> None:
    handler.answer(rows_of({"input": body["input"]}, 9), body["input"])


def broken(handler: Handler, body: dict[str, Any]) -> None:
    handler.answer([{**row, "embedding": [None] * 6} for row in rows_of(body)], [])


def page(handler: Handler, body: dict[str, Any]) -> None:
    handler.send(200, b"<html>welcome</html>")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("SHOP_KEY", KEY)
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.closing.set()
        running.shutdown()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of the pauses between attempts, which do not take place."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


def step(server: Server, **settings: Any) -> Any:
    table = {"model": "small", "base_url": server.url, "key_variable": "SHOP_KEY", "batch_size": 4, **settings}
    return build("step", {"use": "api-embedder", **table})


def texts() -> Corpus:
    return corpus(ITEMS)


def embed(server: Server, folder: Path, given: Corpus | None = None, facts: Any = None, **settings: Any) -> Float32:
    computed: Vectors = step(server, **settings).run(given or texts(), context(folder, facts=facts))
    return computed.values


def expected(given: Corpus, width: int = 6) -> Float32:
    return np.array([vector(text, width) for text in given.texts], dtype=np.float32)


def test_every_item_gets_the_vector_of_its_own_text(server: Server, tmp_path: Path) -> None:
    facts: dict[str, Any] = {}
    computed = embed(server, tmp_path, facts=facts, price_per_million_tokens=20)
    assert np.array_equal(computed, expected(texts()))
    tokens = sum(len(text.split()) for text in texts().texts)
    assert facts == {
        "requests": 5,
        "tokens": tokens,
        "paid_tokens": tokens,
        "price": pytest.approx(20e-6 * tokens),
        "paid": pytest.approx(20e-6 * tokens),
    }
    headers, body = server.asked[0]
    assert headers["authorization"] == f"Bearer {KEY}"
    assert body["model"] == "small" and "dimensions" not in body


def test_prompts_are_put_before_the_texts_and_the_server_shortens_vectors(server: Server, tmp_path: Path) -> None:
    computed = embed(server, tmp_path, prompt="passage: ", dimensions=3, max_characters=20)
    sent = tuple(f"passage: {text[:20]}" for text in texts().texts)
    assert np.array_equal(computed, expected(replace(texts(), texts=sent), 3))


def test_equal_texts_are_sent_once_and_none_are_zeros(server: Server, tmp_path: Path) -> None:
    given = replace(texts(), texts=("a tea", "", "a pot", "a tea", "  "), item_keys=tuple("abcde"))
    computed = embed(server, tmp_path, given)
    assert server.paid == {"a tea": 1, "a pot": 1}
    assert np.array_equal(computed[[0, 3]], np.array([vector("a tea")] * 2, dtype=np.float32))
    assert not computed[[1, 4]].any()


def test_a_second_run_pays_nothing(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = embed(server, tmp_path)
    # Without a key there is nothing to ask for.
    monkeypatch.delenv("SHOP_KEY")
    facts: dict[str, Any] = {}
    # Several files, as for many items.
    monkeypatch.setattr(api_embedder, "SHARD", 8)
    monkeypatch.setattr(artifacts, "SHARD", 8)
    again = embed(server, tmp_path, facts=facts, batch_size=7, price_per_million_tokens=20)
    assert np.array_equal(again, first) and len(server.asked) == 5
    assert facts["requests"] == facts["paid_tokens"] == facts["paid"] == 0 < facts["price"]


def test_another_model_prompt_or_width_is_asked_again(server: Server, tmp_path: Path) -> None:
    for settings in ({}, {"model": "large"}, {"dimensions": 3}, {"prompt": "query: "}, {"base_url": f"{server.url}/"}):
        embed(server, tmp_path, **settings)
    assert len(server.asked) == 4 * 5
    assert {body["model"] for _, body in server.asked} == {"small", "large"}


def test_limits_and_errors_are_waited_for_as_the_server_asks(
    server: Server, tmp_path: Path, pauses: list[float]
) -> None:
    server.script = [status(429, Retry_After="7"), status(500), status(503, Retry_After="0.25")]
    computed = embed(server, tmp_path, requests_at_once=1)
    assert np.array_equal(computed, expected(texts()))
    assert set(server.paid.values()) == {1} and len(server.paid) == ITEMS and len(server.asked) == 8
    assert pauses[0] == 7 and 0.5 < pauses[1] <= 1 and pauses[2] == 0.25


def test_a_request_without_an_answer_is_repeated(server: Server, tmp_path: Path, pauses: list[float]) -> None:
    server.script = [hang]
    assert np.array_equal(embed(server, tmp_path, timeout=0.3), expected(texts()))
    assert set(server.paid.values()) == {1} and len(server.asked) == 6


@pytest.mark.parametrize("refused", [1, 3])
def test_what_was_answered_before_a_failure_is_not_paid_again(server: Server, tmp_path: Path, refused: int) -> None:
    server.script = [well] * refused + [status(401)]
    with pytest.raises(UserError, match="401"):
        embed(server, tmp_path, requests_at_once=1)
    assert len(server.paid) == 4 * refused
    assert np.array_equal(embed(server, tmp_path), expected(texts()))
    assert set(server.paid.values()) == {1} and len(server.paid) == ITEMS


def test_what_was_answered_before_an_interruption_is_not_paid_again(server: Server, tmp_path: Path) -> None:
    class Stop(list):
        def append(self, progress):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        step(server, requests_at_once=2).run(texts(), context(tmp_path, ticks=Stop()))
    before = server.paid.copy()
    assert 4 <= len(before) < ITEMS
    reports: list[Any] = []
    step(server).run(texts(), context(tmp_path, ticks=reports))
    assert set(server.paid.values()) == {1} and len(server.paid) == ITEMS
    assert reports[0].done > len(before) and reports[-1].done == reports[-1].total == ITEMS


def test_requests_are_under_way_at_the_same_time(server: Server, tmp_path: Path) -> None:
    server.meeting = threading.Barrier(2)
    assert np.array_equal(embed(server, tmp_path, batch_size=10, requests_at_once=2), expected(texts()))


def test_two_runs_at_once_pay_once(server: Server, tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        runs = [
            pool.submit(step(server).run, texts(), replace(context(tmp_path), scratch=folder))
            for folder in (tmp_path / "a", tmp_path / "b")
            if folder.mkdir() is None
        ]
        one, two = (run.result().values for run in runs)
    assert np.array_equal(one, two)
    assert set(server.paid.values()) == {1}


REFUSALS: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "key": ([status(401, f"wrong key {KEY}")], {}, "(401: wrong key [SHOP_KEY]); put a valid key into SHOP_KEY"),
    "no key": ([status(401)], {"key_variable": None}, "name its variable as key_variable"),
    "forbidden": ([status(403)], {}, "put a valid key into SHOP_KEY"),
    "model": ([status(404, "no model small")], {}, "(404: no model small); correct model or base_url"),
    "long texts": ([status(400, "too long")], {}, "(400: too long); shorten texts with max_characters"),
    "limits": ([status(429, "slow down")] * 3, {"retries": 2}, "(429: slow down); lower requests_at_once"),
    "errors": ([status(500)] * 3, {"retries": 2}, "run again later; what it answered is kept"),
    "silence": ([hang] * 2, {"retries": 1, "timeout": 0.2}, "did not answer within 0.2 seconds (asked 2 times)"),
    "too few": ([few], {}, "with 3 of 4 vectors"),
    "one twice": ([twice], {}, "with 3 of 4 vectors"),
    "widths": ([uneven], {}, "with vectors of 2 and 6 numbers"),
    "no numbers": ([broken], {}, "with what is not a vector of numbers"),
    "own width": ([wider], {"dimensions": 3}, "with 9 numbers; leave out dimensions = 3"),
    "page": ([page], {}, "does not answer as the API for embeddings does"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_the_server_does_wrong_is_one_line_and_is_not_kept(
    case: str, server: Server, tmp_path: Path, pauses: list[float]
) -> None:
    server.script, settings, message = list(REFUSALS[case][0]), *REFUSALS[case][1:]
    with pytest.raises(UserError) as caught:
        embed(server, tmp_path, requests_at_once=1, **settings)
    line = str(caught.value)
    assert message in line and server.url in line and "\n" not in line and KEY not in line
    width = settings.get("dimensions", 6)
    assert np.array_equal(embed(server, tmp_path, **settings), expected(texts(), width))


def test_a_model_that_has_changed_is_noticed(server: Server, tmp_path: Path) -> None:
    embed(server, tmp_path)
    server.script = [wider]
    more = replace(texts(), texts=(*texts().texts, "a new text"), item_keys=(*texts().item_keys, "new"))
    with pytest.raises(UserError, match=r"vectors of 6 and 9 numbers: it has changed; delete .*small-\w+\.sqlite"):
        embed(server, tmp_path, more)


def test_nobody_listens(server: Server, tmp_path: Path, pauses: list[float]) -> None:
    with pytest.raises(UserError, match="cannot be reached"):
        embed(server, tmp_path, base_url="http://127.0.0.1:9/v1", retries=1)


def test_the_key_goes_to_no_other_server(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    embed(server, tmp_path, key_variable=None)
    assert KEY not in str(server.asked)
    monkeypatch.delenv("OPENAI_API_KEY")
    openai = build("step", {"use": "api-embedder", "model": "text-embedding-3-small"})
    with pytest.raises(UserError, match="into the environment variable OPENAI_API_KEY"):
        openai.run(texts(), context(tmp_path))  # type: ignore[attr-defined]


@pytest.mark.parametrize("key", ["", "a b", "sk-ü", "sk\t-1"])
def test_what_is_no_key_is_not_sent(key: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_KEY", key)
    with pytest.raises(UserError, match="environment variable SHOP_KEY"):
        embed(server, tmp_path)
    assert server.asked == []


@pytest.mark.parametrize("url", ["api.openai.com/v1", "ftp://host/v1", "https://me:secret@host/v1", "https://host?a=1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(RecipeError, match="base_url") as caught:
        build("step", {"use": "api-embedder", "model": "small", "base_url": url})
    assert "\n" not in str(caught.value)


def test_only_what_decides_numbers_is_in_the_key(server: Server) -> None:
    before = step(server).identity()
    free = {"batch_size": 9, "requests_at_once": 2, "retries": 1, "timeout": 5, "price_per_million_tokens": 3}
    assert step(server, **free, key_variable="OTHER").identity() == before
    for name, value in {"model": "large", "dimensions": 3, "prompt": "a", "max_characters": 5}.items():
        assert step(server, **{name: value}).identity() != before


def test_the_missing_package_is_one_line(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r"pip install 'reaemb-bench\[api\]'"):
        embed(server, tmp_path)


def test_damaged_answers_are_one_line(server: Server, tmp_path: Path) -> None:
    embed(server, tmp_path)
    file = next((tmp_path / "cache").rglob("*.sqlite"))
    file.write_bytes(b"nonsense" * 1000)
    with pytest.raises(UserError, match=r"small-\w+\.sqlite cannot be used .* delete it"):
        embed(server, tmp_path)


def test_plan_says_what_a_run_will_cost_and_the_key_is_nowhere(
    server: Server, tmp_path: Path, command: Callable[..., Said]
) -> None:
    (tmp_path / "recipe.toml").write_text(
        'steps = ["prepare", "embed"]\n[prepare]\nsource = { use = "simulated", users = 60, items = 40 }\n'
        f'[embed]\nuse = "api-embedder"\nmodel = "small"\nbase_url = "{server.url}"\nkey_variable = "SHOP_KEY"\n'
        "price_per_million_tokens = 1_000\n",
        encoding="utf-8",
    )
    places = ("--store", "store", "--cache", "cache")
    server.script = [status(401, f"no such key: {KEY}")]
    said = [command("plan", "recipe.toml", *places)]
    assert f"sends texts to {server.url} with the key in SHOP_KEY; how many is unknown" in said[0].out
    said.append(command("run", "recipe.toml", *places))
    assert said[1].code == 2 and "no such key: [SHOP_KEY]" in said[1].err
    said.append(command("plan", "recipe.toml", *places))
    assert "sends 40 of 40 texts" in said[2].out
    said.append(command("run", "recipe.toml", *places))
    assert said[3].code == 0
    said.append(command("plan", "recipe.toml", *places, "--set", "embed.batch_size=3"))
    assert "sends" not in said[4].out, "nothing is left to compute"
    manifests = [json.loads(file.read_text()) for file in (tmp_path / "store").rglob("manifest.json")]
    facts = next(manifest["facts"] for manifest in manifests if manifest["step"] == "embed")
    # The estimate errs upwards.
    estimate = int(said[2].out.partition("about ")[2].partition(" tokens")[0].replace(",", ""))
    assert facts["tokens"] <= estimate <= 4 * facts["tokens"]
    assert facts["price"] == pytest.approx(facts["tokens"] / 1000)
    assert not any(KEY in part for printed in said for part in (printed.out, printed.err))
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) > 5 and not any(KEY.encode() in file.read_bytes() for file in files)
