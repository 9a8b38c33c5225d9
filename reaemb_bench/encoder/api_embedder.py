"""Item vectors from a server with OpenAI's API for embeddings; answers are kept, so none is paid for again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from filelock import FileLock
from pydantic import Field, field_validator

from reaemb_bench.core.artifacts import SHARD, Corpus, Float32, Vectors, shard_names, write_shard
from reaemb_bench.core.component import Context, Progress, Step
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine

_OPENAI = "https://api.openai.com/v1"
_BYTES = 3
"""Bytes of text for each token: fewer than in English, as many as in Chinese, so that estimates err upwards."""
_WITHOUT_EFFECT = ("key_variable", "batch_size", "requests_at_once", "retries", "timeout", "price_per_million_tokens")
"""Settings that decide no number and stay out of the key."""
_TOKENS = "SELECT tokens FROM answers WHERE text = ?"
_VECTOR = "SELECT vector FROM answers WHERE text = ?"


class ApiEmbedder(Step):
    """Embed every item's text by a server with OpenAI's API for embeddings. OpenAI itself, vLLM and Ollama are some.

    Needs the extra `api`. The cache keeps all answers by address, model, dimensions and text, so that a run that was
    interrupted, or another one, pays only for new texts; `plan` says how many there are and what they cost. A process
    that is killed loses the answers to requests under way.
    """

    model: str
    """The model's name on the server."""
    base_url: str = _OPENAI
    """Address of the API, up to `/v1`."""
    key_variable: str | None = None
    """The environment variable that holds the key, which is shown and stored nowhere. None is OPENAI_API_KEY for
    OpenAI's own address; other servers get no key then."""
    dimensions: int | None = Field(default=None, ge=1)
    """Numbers of a vector, for models that can shorten them; None takes the model's own."""
    prompt: str = ""
    """What is put before each text, such as `passage: `."""
    max_characters: int | None = Field(default=None, ge=1)
    """Most characters of an item's text, for servers that refuse long texts; the end is cut. None cuts nothing."""
    batch_size: int = Field(default=128, ge=1, le=2_048)
    """Texts of one request."""
    requests_at_once: int = Field(default=4, ge=1, le=64)
    """Requests that wait for their answers at the same time."""
    retries: int = Field(default=8, ge=0, le=100)
    """How often a request is repeated after an error of the server, a limit (429) or a timeout. Pauses are as long as
    the server asks for, or from 0.5 to 8 seconds."""
    timeout: float = Field(default=60, gt=0)
    """Seconds to wait for an answer."""
    price_per_million_tokens: float | None = Field(default=None, ge=0)
    """The server's price, in any currency, for the estimate in `plan` and the facts of the result."""

    @field_validator("base_url")
    @classmethod
    def _check_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise ValueError("give an address such as https://api.openai.com/v1")
        if parts.username is not None:
            raise ValueError("leave name and password out: recipes are stored; name an environment variable instead")
        return value.rstrip("/")

    def identity(self) -> dict[str, Any]:
        """What decides the vectors: all settings but those of speed, key and price."""
        return {name: value for name, value in super().identity().items() if name not in _WITHOUT_EFFECT}

    def forecast(self, corpus: Corpus | None, machine: Machine) -> str:
        """What a run would send and pay, in one line; without a corpus, only where to."""
        variable = self._variable()
        server = self.base_url + (f" with the key in {variable}" if variable else "")
        if corpus is None:
            return f"sends texts to {server}; how many is unknown until the data are prepared"
        texts = missing = _different(self._texts(corpus))
        file = self._answers_file(machine)
        if file.is_file():
            with _opened(file) as answers:
                missing = [text for text in texts if _lookup(answers, _TOKENS, text) is None]
        tokens = sum(-(-len(text.encode()) // _BYTES) for text in missing)
        price = "" if self.price_per_million_tokens is None else f", price {self._price(tokens):.4g}"
        return f"sends {len(missing):,} of {len(texts):,} texts to {server}; at most about {tokens:,} tokens{price}"

    def obstacle(self, machine: Machine) -> str:
        """The package or the key that is missing; nothing if answers are kept, of which all may be there."""
        return "" if self._answers_file(machine).is_file() else self._why_mute()

    def run(self, corpus: Corpus, context: Context) -> Vectors:
        """(items, width), zeros for items without text. Raises UserError if the server refuses, or answers wrongly."""
        texts, file = self._texts(corpus), self._answers_file(context.machine)
        different = _different(texts)
        if not different:
            raise UserError("api-embedder: no item has a text to send; check the attributes of the data")
        file.parent.mkdir(parents=True, exist_ok=True)
        # A process that needs the same answers waits instead of paying for them too.
        with FileLock(f"{file}.lock"), _opened(file) as answers:
            missing = [text for text in different if _lookup(answers, _TOKENS, text) is None]
            requests = self._ask(missing, answers, file, len(different) - len(missing), context) if missing else 0
            tokens, paid = (sum(_lookup(answers, _TOKENS, text) or 0 for text in part) for part in (different, missing))
            facts: dict[str, float | int | str] = {"requests": requests}
            if tokens:
                facts |= {"tokens": round(tokens), "paid_tokens": round(paid)}
            if self.price_per_million_tokens is not None:
                facts |= {"price": self._price(tokens), "paid": self._price(paid)}
            context.note(facts)
            width = len(_lookup(answers, _VECTOR, different[0])) // 4
            starts = range(0, len(texts), SHARD)
            files = [context.scratch / name for name in shard_names(len(starts))]
            for start, shard in zip(starts, files, strict=True):
                values = np.zeros((len(texts[start : start + SHARD]), width), dtype=np.float32)
                for row, text in enumerate(texts[start : start + SHARD]):
                    if text:
                        values[row] = np.frombuffer(_lookup(answers, _VECTOR, text), dtype="<f4")
                write_shard(shard, values)
            return Vectors(*files)

    def _ask(self, texts: Sequence[str], answers: sqlite3.Connection, file: Path, done: int, context: Context) -> int:
        """Keeps the answers for texts, each as soon as it comes; returns how many requests that took.

        done: how many other texts have answers.
        """
        if reason := self._why_mute():
            raise UserError(f"api-embedder: {reason}")
        import openai

        key = self._key()
        # The client will not do without a key, and servers that need none ignore it.
        client = openai.OpenAI(
            api_key=key or "none", base_url=self.base_url, max_retries=self.retries, timeout=self.timeout
        )
        settings: dict[str, Any] = {"model": self.model, "encoding_format": "float"}
        if self.dimensions is not None:
            settings["dimensions"] = self.dimensions
        keeping, failed = threading.Lock(), threading.Event()
        wrong = f"api-embedder: {self.base_url} answers for {self.model} with"

        def received(batch: Sequence[str]) -> tuple[list[Float32], int]:
            try:
                answer = client.embeddings.create(input=list(batch), **settings)
                rows = sorted(answer.data, key=lambda row: int(row.index))
                numbers = [row.index for row in rows]
                values = [np.asarray(row.embedding, dtype="<f4") for row in rows]
                tokens = answer.usage.prompt_tokens or 0 if answer.usage else 0
            except (openai.OpenAIError, AttributeError, LookupError, TypeError, ValueError) as error:
                raise UserError(self._refusal(error, key)) from None
            if numbers != list(range(len(batch))):
                raise UserError(f"{wrong} {len({*numbers})} of {len(batch)} vectors; lower batch_size")
            if not all(value.ndim == 1 and value.size and np.isfinite(value).all() for value in values):
                raise UserError(f"{wrong} what is not a vector of numbers; choose another model")
            return values, tokens

        def keep(batch: Sequence[str], values: Sequence[Float32], tokens: int) -> None:
            widths = {value.size for value in values}
            if self.dimensions is not None and widths != {self.dimensions}:
                raise UserError(f"{wrong} {max(widths)} numbers; leave out dimensions = {self.dimensions}")
            earlier = answers.execute("SELECT length(vector) FROM answers LIMIT 1").fetchone()
            widths |= {earlier[0] // 4} if earlier else set()
            if len(widths) > 1:
                known = " and ".join(map(str, sorted(widths)))
                raise UserError(f"{wrong} vectors of {known} numbers: it has changed; delete {file} to ask again")
            sizes = [len(text.encode()) for text in batch]
            rows = [
                (_digest(text), value.tobytes(), tokens * size / sum(sizes))
                for text, value, size in zip(batch, values, sizes, strict=True)
            ]
            answers.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows)
            answers.commit()

        def ask(batch: Sequence[str]) -> None:
            if failed.is_set():
                return
            try:
                values, tokens = received(batch)
                with keeping:
                    keep(batch, values, tokens)
            except BaseException:
                failed.set()
                raise

        total = done + len(texts)
        batches = [texts[start : start + self.batch_size] for start in range(0, len(texts), self.batch_size)]
        with ThreadPoolExecutor(self.requests_at_once) as pool:
            waiting = {pool.submit(ask, batch): len(batch) for batch in batches}
            try:
                for future in as_completed(waiting):
                    future.result()
                    done += waiting[future]
                    context.report(Progress(done, total, "texts"))
            except BaseException:
                # No other request is sent; those that were sent are paid for, so their answers are waited for and kept.
                failed.set()
                raise
        return len(batches)

    def _refusal(self, error: Exception, key: str) -> str:
        """Why there is no answer, in one line with a cure and without the key."""
        import openai

        variable, kept = self._variable(), "what it answered is kept"
        reason, cure = str(error.__cause__ or error), f"check base_url and the network; {kept}"
        if isinstance(error, openai.APITimeoutError):
            what = f"did not answer within {self.timeout:g} seconds"
            reason, cure = f"asked {self.retries + 1} times", f"raise timeout or lower batch_size; {kept}"
        elif isinstance(error, openai.APIConnectionError):
            what = "cannot be reached"
        elif isinstance(error, openai.APIStatusError):
            what = f"refuses to embed with {self.model}"
            message = error.body.get("message") if isinstance(error.body, Mapping) else None
            reason = f"{error.status_code}: {message or error.message}"
            cure = "shorten texts with max_characters, or lower batch_size"
            if error.status_code in (401, 403):
                cure = f"put a valid key into {variable}" if variable else "name its variable as key_variable"
            elif error.status_code == 404:
                cure = "correct model or base_url"
            elif error.status_code == 429 or error.status_code >= 500:
                cure = f"lower requests_at_once, or run again later; {kept}"
        else:
            what = "does not answer as the API for embeddings does"
        if key:
            reason = reason.replace(key, f"[{variable}]")
        return f"api-embedder: {self.base_url} {what} ({' '.join(reason.split())[:300]}); {cure}"

    def _why_mute(self) -> str:
        """Why nothing can be asked of the server, in one line; empty if it can."""
        if find_spec("openai") is None:
            return "the package openai is not installed; pip install 'reaemb-bench[api]'"
        # A header with other characters is refused by the client, in words that hold the key.
        if self._variable() and not re.fullmatch(r"[!-~]+", self._key()):
            return f"put the key for {self.base_url} into the environment variable {self._variable()}"
        return ""

    def _key(self) -> str:
        return os.environ.get(self._variable() or "", "").strip()

    def _variable(self) -> str | None:
        return "OPENAI_API_KEY" if self.key_variable is None and self.base_url == _OPENAI else self.key_variable

    def _price(self, tokens: float) -> float:
        return tokens * (self.price_per_million_tokens or 0) / 1e6

    def _texts(self, corpus: Corpus) -> list[str]:
        """What is sent for each item; empty for an item without text."""
        return [f"{self.prompt}{text[: self.max_characters]}" if text.strip() else "" for text in corpus.texts]

    def _answers_file(self, machine: Machine) -> Path:
        name = re.sub(r"[^\w.-]", "_", self.model)[:60]
        digest = _digest(json.dumps([self.base_url, self.model, self.dimensions])).hex()[:16]
        return machine.cache / "api-embedder" / f"{name}-{digest}.sqlite"


def _different(texts: Sequence[str]) -> list[str]:
    """The texts, each once."""
    return list(dict.fromkeys(filter(None, texts)))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _lookup(answers: sqlite3.Connection, query: str, text: str) -> Any:
    """The vector of a text, as bytes of float32, or its tokens; None if the server was not asked for it."""
    row = answers.execute(query, (_digest(text),)).fetchone()
    return None if row is None else row[0]


@contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    """The table of answers: sha256 of the text, vector, and its share of its request's tokens."""
    try:
        # Threads take turns.
        with closing(sqlite3.connect(file, check_same_thread=False)) as answers:
            answers.execute("CREATE TABLE IF NOT EXISTS answers (text BLOB PRIMARY KEY, vector BLOB, tokens REAL)")
            yield answers
    except sqlite3.Error as error:
        raise UserError(f"{file} cannot be used ({error}); make room there, or delete it if it is damaged") from None
