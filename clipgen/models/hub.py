"""Downloads from the Hugging Face hub: reads a repository's list of files, then fetches the files that are needed."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from clipgen.errors import ClipgenError, ModelNotFound
from clipgen.models.header import read_json
from clipgen.models.ids import ModelId, cached_folder, is_offline

TIMEOUT = 15.0  # seconds until the hub counts as unreachable
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
ReadJson = Callable[[str], dict[str, Any]]  # reads a JSON file of the repository
Choose = Callable[[Collection[str], ReadJson], list[str]]  # (names of all files, reader) -> names of the needed ones


def download(model_id: ModelId, choose: Choose) -> Path:
    """Downloads the files of a repository that `choose` selects, and returns the folder of its snapshot.

    Files that are in the cache already are not downloaded again. If the hub cannot be reached, the cached snapshot is
    returned. Raises ModelNotFound with the cure, and what `choose` raises.
    """
    if is_offline():
        return cached_folder(model_id)
    try:
        return _download(model_id, choose)
    except ClipgenError:
        raise
    except _expected_errors() as error:
        if _is_unreachable(error):
            with suppress(ModelNotFound):
                return cached_folder(model_id)
        explanation = _explain(model_id, error)
        if explanation is None:
            raise
        raise explanation from error


def _download(model_id: ModelId, choose: Choose) -> Path:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    name, revision = model_id.name, model_id.revision
    info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=TIMEOUT)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    chosen = choose(sizes, lambda file: read_json(Path(hf_hub_download(name, file, revision=revision))))
    _check_disk(model_id, {file: sizes[file] for file in chosen}, info.sha)
    return Path(snapshot_download(name, revision=revision, allow_patterns=chosen))


def _check_disk(model_id: ModelId, sizes: Mapping[str, int], commit: str | None) -> None:
    """Raises ModelNotFound if the files that are not in the cache need more space than the disk has."""
    from huggingface_hub import constants, try_to_load_from_cache

    def is_cached(file: str) -> bool:
        return isinstance(try_to_load_from_cache(model_id.name, file, revision=commit), str)

    needed = sum(size for file, size in sizes.items() if not is_cached(file))
    cache = Path(constants.HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise _failed(model_id, f"it needs {_gigabytes(needed)} on the disk of the hub cache and {_gigabytes(free)} "
                      "are free. Free some, or set HF_HOME to a folder on another disk.")  # fmt: skip


def _expected_errors() -> tuple[type[Exception], ...]:
    """Returns the errors of the disk, of huggingface_hub and of its HTTP client, which it passes on."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    return OSError, _http_error(), LocalEntryNotFoundError


def _http_error() -> type[Exception]:
    """Returns the base class of the HTTP client's errors: httpx or requests, depending on huggingface_hub's version."""
    from huggingface_hub.errors import HfHubHTTPError

    base: type[Exception] = HfHubHTTPError.__bases__[0]
    return base


def _is_unreachable(error: Exception) -> bool:
    """Tells whether an error means that the hub did not answer."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    is_answer = isinstance(error, HfHubHTTPError)
    unreachable = (_http_error(), ConnectionError, TimeoutError, LocalEntryNotFoundError)
    return not is_answer and isinstance(error, unreachable)


def _explain(model_id: ModelId, error: Exception) -> ModelNotFound | None:
    """Returns the error for users; None for one that is neither of the hub, nor of the network, nor of the disk."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name = model_id.name
    if isinstance(error, GatedRepoError):
        page = f"https://huggingface.co/{name}"
        return _failed(model_id, f"it is gated. Accept its terms on {page}, then log in: hf auth login")
    if isinstance(error, RepositoryNotFoundError):
        return ModelNotFound(
            f"There is no model '{name}' on the hub, or it is private; then log in: hf auth login", field="model"
        )
    if isinstance(error, RevisionNotFoundError):
        return ModelNotFound(f"Model '{name}' has no revision '{model_id.revision}'.", field="model")
    if isinstance(error, HfHubHTTPError):
        return _failed(model_id, f"the hub answers {error.response.status_code}. Try again later.")
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return _failed(model_id, "the disk of the hub cache is full. Free some space, or set HF_HOME to another disk.")
    if isinstance(error, PermissionError):
        return _failed(
            model_id, f"the hub cache cannot be written ({error.strerror}). Set HF_HOME to a folder of yours."
        )
    if _is_unreachable(error):
        return _failed(model_id, "the hub cannot be reached. Check the connection, or use a model of this machine.")
    return None


def _failed(model_id: ModelId, reason: str) -> ModelNotFound:
    return ModelNotFound(f"Model '{model_id.name}' could not be downloaded: {reason}", field="model")


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
