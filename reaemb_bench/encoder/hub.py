"""Models by hub id or by folder: what identifies their contents, and the folder that holds them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from reaemb_bench.core.errors import UserError
from reaemb_bench.core.files import contents_of

_OTHER_FORMATS = ["pytorch_model*.bin", "*.onnx", "*.onnx_data", "*.h5", "*.msgpack", "*.gguf", "openvino/*"]
"""Files of models on the hub that are not read: weights in formats other than safetensors."""


def contents_of_model(model: str, revision: str | None) -> dict[str, Any]:
    """What a model holds, for a key: the sha256 of each file of a folder, or the commit on the hub.

    revision: commit, tag or branch; None is the default branch. Without a connection its commit is that of the last
    download; if there was none, the revision itself stands for it: a plan needs no model. Raises UserError if the
    hub has no such model or revision.
    """
    folder = _local(model)
    if folder is not None:
        return contents_of(folder)
    return {"id": model, "commit": commit_of(model, revision) or f"unknown commit of {revision}"}


def folder_of_model(model: str, revision: str | None) -> Path:
    """The folder of a model, which is downloaded if it is on the hub.

    Raises UserError if there is no such folder, model or revision, if it is gated, or if the hub cannot be reached.
    """
    folder = _local(model)
    if folder is None:
        commit = commit_of(model, revision)
        from huggingface_hub import snapshot_download

        if commit is not None:
            with _explained(model, revision):
                return Path(snapshot_download(model, revision=commit, ignore_patterns=_OTHER_FORMATS))
        raise UserError(f"model: the hub cannot be reached, and {model} was not downloaded before; give a folder")
    if reason := missing_folder(model):
        raise UserError(reason)
    return folder


def missing_folder(model: str) -> str:
    """Why a model that is named by a folder cannot be read, in one line; empty if it can, or if it is on the hub."""
    folder = _local(model)
    absent = folder is not None and not folder.is_dir()
    return f"model: {model} is not a folder; correct the path or give a hub id" if absent else ""


def _local(model: str) -> Path | None:
    """The folder that a setting names, whether or not it exists; None for a hub id, which is `name` or `owner/name`."""
    path = Path(model).expanduser()
    return path if path.is_dir() or model.startswith((".", "/", "~")) or model.count("/") > 1 else None


@cache
def commit_of(model: str, revision: str | None) -> str | None:
    """The commit that a revision stands for; None if the hub cannot be reached and none is known.

    Asked for once in a process, so that what is loaded is what the key says, even if the branch moves meanwhile.
    """
    if re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        return revision
    from huggingface_hub import resolve_revision
    from huggingface_hub.errors import RevisionResolutionError

    try:
        with _explained(model, revision):
            # As text, what this returns is the revision that it was asked for.
            return resolve_revision(model, revision=revision).resolved
    except RevisionResolutionError:
        return None


@contextmanager
def _explained(model: str, revision: str | None) -> Iterator[None]:
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except GatedRepoError:
        cure = f"accept its terms at https://huggingface.co/{model} and log in with `hf auth login`"
        raise UserError(f"model: {model} is gated; {cure}") from None
    except RevisionNotFoundError:
        raise UserError(f"revision: {model} has no revision {revision}; name a commit, tag or branch of it") from None
    except (RepositoryNotFoundError, HFValidationError):
        cure = "correct it, or log in with `hf auth login`"
        raise UserError(f"model: {model} is neither a folder nor a model that the hub shows you; {cure}") from None
    except OSError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"model: {model} cannot be downloaded ({reason}); try again, or give a folder") from None
