"""Downloads from a home that cuts connections, ignores ranges, sends other bytes, stalls, or is away."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reaemb_bench.core.component import Progress
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.machine import Machine
from reaemb_bench.data import transfer
from reaemb_bench.data.interactions import About
from reaemb_bench.data.published import CACHE, MIRROR, PublishedFile, fetch
from tests.helpers.server import Home, packed, serving

CONTENT = packed(random.Random(1).randbytes(3_000_000))
NAME = "data.example.org/sets/reviews.json.gz"
OTHER = "old.example.org/reviews.json.gz"
FILE = PublishedFile((f"https://{NAME}", f"https://{OTHER}"))
TERMS = About("https://data.example.org", "research only", "Author 2020")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A server that holds the file, in kept_at of its homes; nothing waits between attempts."""
    with serving({NAME: CONTENT}) as server:
        monkeypatch.setenv(MIRROR, server.address)
        monkeypatch.setenv(CACHE, str(tmp_path))
        monkeypatch.setattr(transfer, "PAUSE", 0.0)
        yield server


def get(folder: Path, file: PublishedFile = FILE, report: list[Progress] | None = None) -> Path:
    report = [] if report is None else report
    return fetch({"file": file}, "shop", TERMS, Machine(cache=folder), report.append)["file"]


def gets(home: Home) -> list[tuple[str, str]]:
    return [(path.lstrip("/"), wanted) for method, path, wanted in home.asked if method == "GET"]


def test_a_file_is_downloaded_once_and_its_terms_are_said_once(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps: list[Progress] = []
    for _ in range(2):
        file = get(tmp_path, report=steps)
        assert file == tmp_path / "downloads" / NAME
        assert file.read_bytes() == CONTENT
    assert gets(home) == [(NAME, "")]
    said = capsys.readouterr().err
    assert said.count("shop: downloads reviews.json.gz") == 1
    assert "terms: research only" in said and "cite: Author 2020" in said
    assert steps[-1] == Progress(3, 3, "MB")
    assert [step.done for step in steps] == sorted(step.done for step in steps)


def test_a_broken_connection_goes_on_where_it_broke(home: Home, tmp_path: Path) -> None:
    home.broken = 3
    assert get(tmp_path).read_bytes() == CONTENT
    starts = [int(wanted[6:-1]) for _, wanted in gets(home)[1:]]
    assert len(starts) == 3 and starts == sorted(set(starts))
    assert home.sent == len(CONTENT), "no byte was sent twice"
    assert not list(tmp_path.rglob("*.part*"))


def test_a_home_that_ignores_ranges_sends_all_again(home: Home, tmp_path: Path) -> None:
    home.broken, home.ranges = 1, False
    assert get(tmp_path).read_bytes() == CONTENT
    assert home.sent > len(CONTENT)


def test_without_etag_and_date_a_part_is_not_added_to(home: Home, tmp_path: Path) -> None:
    home.broken, home.etags = 1, False
    assert get(tmp_path).read_bytes() == CONTENT
    assert [wanted for _, wanted in gets(home)] == ["", ""]


def test_a_file_that_changes_in_the_middle_is_sent_anew(home: Home, tmp_path: Path) -> None:
    home.broken = transfer.ATTEMPTS + 100
    home.ranges = False
    with pytest.raises(UserError, match="cannot be downloaded"):
        get(tmp_path)
    new = packed(b'{"a": 1}\n' * 100_000)
    home.broken, home.ranges, home.files[NAME] = 0, True, new
    assert get(tmp_path).read_bytes() == new


def test_a_killed_download_resumes_in_the_next_process(home: Home, tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        "from reaemb_bench.core.machine import Machine\n"
        "from reaemb_bench.data.interactions import About\n"
        "from reaemb_bench.data.published import PublishedFile, fetch\n"
        "def report(progress):\n"
        "    if progress.done: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"fetch({{1: PublishedFile({FILE.addresses!r})}}, 'shop', About(), Machine(cache={str(tmp_path)!r}), report)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    [part] = tmp_path.rglob("*.part")
    # What was written but not flushed is lost, what was flushed is there.
    before = part.stat().st_size
    assert get(tmp_path).read_bytes() == CONTENT
    assert gets(home)[-1] == (NAME, f"bytes={before}-" if before else "")


@pytest.mark.parametrize("status", [503, 429, 500])
def test_a_busy_home_is_asked_again(home: Home, tmp_path: Path, status: int) -> None:
    home.statuses = [status, status]
    assert get(tmp_path).read_bytes() == CONTENT
    assert len(gets(home)) == 3


def test_the_second_home_is_asked_if_the_first_has_no_such_file(home: Home, tmp_path: Path) -> None:
    home.files = {OTHER: CONTENT}
    assert get(tmp_path) == tmp_path / "downloads" / NAME
    assert gets(home) == [(NAME, ""), (OTHER, "")]


def test_a_home_that_stalls_is_one_line(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "TIMEOUTS", (0.1, 0.1))
    monkeypatch.setattr(transfer, "ATTEMPTS", 1)
    home.stalls = True
    with pytest.raises(UserError, match="it does not answer in time"):
        get(tmp_path)


def test_without_a_connection_the_line_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MIRROR, "http://127.0.0.1:9")
    monkeypatch.setenv(CACHE, str(tmp_path))
    monkeypatch.setattr(transfer, "PAUSE", 0.0)
    with pytest.raises(UserError, match="Connection refused") as caught:
        get(tmp_path)
    kept_at = tmp_path / "downloads" / NAME
    assert str(caught.value).endswith(f"download https://{NAME} by other means and save it as {kept_at}")
    assert "\n" not in str(caught.value)
    assert FILE.identity() == {"missing": f"https://{NAME}"}
    kept_at.write_bytes(CONTENT)
    assert get(tmp_path).read_bytes() == CONTENT
    assert FILE.identity().keys() == {"sha256"}


@pytest.mark.parametrize("sent", [b"<html>log in first</html>", CONTENT[:-1000], CONTENT[:500] + CONTENT[501:]])
def test_other_bytes_are_refused(home: Home, tmp_path: Path, sent: bytes) -> None:
    home.files = {NAME: sent, OTHER: sent}
    with pytest.raises(UserError, match="it sends no whole gzip file"):
        get(tmp_path)
    assert [file.name for file in (tmp_path / "downloads").rglob("*") if file.is_file()] == ["reviews.json.gz.lock"]


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_known_digest_is_kept_to(home: Home, tmp_path: Path, kind: str) -> None:
    import hashlib

    digest = f"{kind}:{hashlib.new(kind, CONTENT).hexdigest()}"
    file = PublishedFile(FILE.addresses, digest)
    home.files[NAME], good = packed(b"other"), CONTENT
    with pytest.raises(UserError, match=r"it sends another file than was published"):
        get(tmp_path, file)
    home.files[NAME] = good
    assert get(tmp_path, file).read_bytes() == CONTENT
    assert file.identity() == {"digest": digest}


def test_a_file_that_was_damaged_in_the_cache_is_refused(home: Home, tmp_path: Path) -> None:
    file = get(tmp_path)
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"is not the file that was published .* delete it, and it is downloaded again"):
        get(tmp_path)
    file.unlink()
    assert get(tmp_path).read_bytes() == CONTENT


def test_the_key_is_the_same_before_and_after_the_download_and_says_if_the_home_has_another_file(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = FILE.identity()
    assert before == {"size": len(CONTENT), "etag": home.etag(CONTENT)}
    file = get(tmp_path)
    assert FILE.identity() == before
    monkeypatch.setenv(MIRROR, "http://127.0.0.1:9")
    assert FILE.identity() == before, "what is pinned is not asked for"
    monkeypatch.setenv(MIRROR, home.address)
    file.unlink()
    home.files[NAME] = packed(b"a new edition")
    with pytest.raises(UserError, match=r"another file than was first downloaded; delete .*pin\.json"):
        get(tmp_path)
    pin = file.with_name(f"{file.name}.pin.json")
    assert json.loads(pin.read_text())["address"] == f"{home.address}/{NAME}"
    pin.unlink()
    assert get(tmp_path).read_bytes() == home.files[NAME]
    assert FILE.identity() == {"size": len(home.files[NAME]), "etag": home.etag(home.files[NAME])}


def test_a_cache_in_which_plans_do_not_look_is_refused(home: Home, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set REAEMB_BENCH_CACHE to the first"):
        get(tmp_path / "elsewhere")
