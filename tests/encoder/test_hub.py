"""Models of the hub, from a server of this machine that speaks its protocol: commits, gates, and what needs a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build
from tests.helpers.encoders import encoder

CPU = Machine(device="cpu")
COMMITS = {"main": "a" * 40, "old": "b" * 40}
SCRIPT = """
import json, sys
from pathlib import Path
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.registry import build
folder, name, revision = Path(sys.argv[1]), sys.argv[2], sys.argv[3] or None
try:
    backbone = build("backbone", {"use": "causal-lm", "model": name, "revision": revision})
    key = backbone.fingerprint()
    backbone.prepare(None, folder, Machine(device="cpu"), 0)
    # A later step knows the folder alone.
    build("backbone", {"use": "causal-lm", "model": name}).load(folder, Machine(device="cpu"))
    print(json.dumps([key["commit"], *(part.name for part in folder.glob("home/hub/*/snapshots/*"))]))
except UserError as refused:
    print(json.dumps(str(refused)))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a hub with `some/model`, in two commits, and `some/gated`."""
    files = encoder(tmp_path_factory.mktemp("hub")).folder / "backbone"

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = self.path.partition("?")[0].strip("/").split("/")
            body, status, headers = b"{}", 404, {"X-Error-Code": "EntryNotFound"}
            if "gated" in parts:
                status, headers = 403, {"X-Error-Code": "GatedRepo"}
            elif parts[:2] == ["api", "models"] and parts[4:5] == ["revision"]:
                body, status = json.dumps({"id": "some/model", "sha": COMMITS[parts[5]]}).encode(), 200
            elif parts[2:3] == ["resolve"] and (files / parts[4]).is_file():
                body, status = (files / parts[4]).read_bytes(), 200
                headers = {"X-Repo-Commit": COMMITS.get(parts[3], parts[3]), "ETag": f'"{parts[3]}-{parts[4]}"'}
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def said(hub: str, folder: Path, *words: str, offline: str = "0") -> object:
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": offline}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), *words], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_revision_is_a_commit_in_the_key_and_in_all_later_steps(hub: str, tmp_path: Path) -> None:
    assert said(hub, tmp_path / "new", "some/model", "") == [COMMITS["main"]] * 2
    assert said(hub, tmp_path / "old", "some/model", "old") == [COMMITS["old"]] * 2
    assert said(hub, tmp_path / "old", "some/model", "old", offline="1") == [COMMITS["old"]] * 2


@pytest.mark.slow
def test_a_gated_model_names_the_page_of_its_terms(hub: str, tmp_path: Path) -> None:
    line = said(hub, tmp_path, "some/gated", "")
    assert isinstance(line, str) and "\n" not in line
    assert line.startswith("model: some/gated is gated; accept its terms at https://huggingface.co/some/gated")


def test_quantised_weights_need_a_gpu_and_a_type_of_numbers_does_not(tmp_path: Path) -> None:
    named = {"use": "causal-lm", "model": str(encoder(tmp_path).folder / "backbone")}
    with pytest.raises(UserError, match=r"quantised = '4bit' needs an NVIDIA GPU, .* on cpu; leave it out$"):
        build("backbone", {**named, "quantised": "4bit"}).load(tmp_path, CPU)  # type: ignore[attr-defined]
    loaded = build("backbone", {**named, "dtype": "bfloat16"}).load(tmp_path, CPU)  # type: ignore[attr-defined]
    assert loaded.model.dtype == torch.bfloat16
