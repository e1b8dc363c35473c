"""Where a model runs and in which precision, how many pictures at once, and what is given up when memory runs short."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from clipgen.errors import OutOfMemory, SettingsError

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
# Pixels of one batch. On a CPU 8 pictures of 128 x 128 cost .6 of 8 single ones; from 256 x 256 on nothing is gained.
PIXELS_AT_ONCE = {"cpu": 8 * 128 * 128, "mps": 4 * 512 * 512, "cuda": 16 * 512 * 512}
MOST_AT_ONCE = 64
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
_UNITS = {"bytes": 1, "MiB": 2**20, "GiB": 2**30}


def set_library_switches() -> None:
    """Keeps the model libraries from running foreign code, phoning home and chattering; acts before their import."""
    os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(name, "error")


@contextmanager
def collection_off() -> Iterator[None]:
    """Pauses garbage collection; importing diffusers makes half a million objects that stay, and none to free."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def devices() -> list[str]:
    """Returns the devices of this machine, the fastest first; `cpu` is always the last."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def pick_device(name: str = "auto") -> torch.device:
    """Returns the device of that name, `auto` the fastest; raises SettingsError naming those there are."""
    known = devices()
    wanted = {"auto": known[0], "cuda": "cuda:0"}.get(name, name)
    if wanted not in known:
        raise SettingsError(
            f"Device '{name[:60]}' is not here. Devices: auto, {', '.join(known)}.",
            field="device",
            allowed=["auto", *known],
        )
    return torch.device(wanted)


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Returns the precision of that name; `auto` is float16 on CUDA, else float32, so that every CPU draws the same.

    Raises SettingsError.
    """
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise SettingsError(
            f"Unknown dtype '{name[:60]}'. Dtypes: auto, {', '.join(DTYPES)}.", field="dtype", allowed=["auto", *DTYPES]
        )
    return DTYPES[name]


def images_at_once(width: int, height: int, device: torch.device) -> int:
    """Returns how many pictures of that size are denoised as one batch; a batch is as large as it still pays."""
    return max(1, min(MOST_AT_ONCE, PIXELS_AT_ONCE[device.type] // (width * height)))


def free_memory(device: torch.device) -> int | None:
    """Returns the bytes a device can still give, None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    available = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text("ascii"))
    found = [] if available is None else [int(available[1]) * 1024]
    return min(found + _cgroup_free(), default=None)


def _cgroup_free() -> list[int]:
    """Returns what a container's memory limit leaves, if there is one."""
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if not limit.exists() or not (text := limit.read_text("ascii").strip()).isdigit():
        return []
    return [max(0, int(text) - int(used.read_text("ascii")))]


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an error means that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def check_memory(needed: int, device: torch.device, model: str) -> None:
    """Raises OutOfMemory if the `needed` bytes of a model are more than the device has left."""
    free = free_memory(device)
    if free is not None and needed > free:
        raise OutOfMemory(f"Model '{model}' needs {_gib(needed)} of memory, {_gib(free)} are free on {device}.")


@contextmanager
def raise_out_of_memory(what: str, device: torch.device) -> Iterator[None]:
    """Turns a lack of memory inside into OutOfMemory that names what did not fit."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"{what} does not fit into the memory of {device}.") from error


class MemoryFallback:
    """Runs a batch whole if it fits, else in ever smaller pieces, and remembers what fitted for each size.

    The rungs: collect garbage and retry; halve the piece, down to one row (for classifier-free guidance the last
    halving is its two calls); OutOfMemory. A retry starts from the same inputs, so the picture stays the same.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._rows: dict[tuple[str, int, int], int] = {}

    def run(self, what: str, size: tuple[int, int], call: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """Returns `call(*rows)` for tensors that share their first axis, pieces concatenated along it.

        `what` and `size` (width, height in pixels) are the memory's key. Raises OutOfMemory.
        """
        total = len(rows[0])
        piece = self._rows.get((what, *size), total)
        retried = piece < total
        while True:
            try:
                parts = [call(*part) for part in zip(*(torch.split(tensor, piece) for tensor in rows), strict=True)]
                return parts[0] if len(parts) == 1 else torch.cat(parts)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if retried and piece == 1:
                    raise self._defeat(what, size, error) from error
            piece = self._next(what, size, piece) if retried else piece
            retried = True
            self._collect()

    def measures(self, size: tuple[int, int]) -> list[str]:
        """Returns one line for each thing that was given up at this size."""
        return [
            f"{what} ran {rows} at a time to fit into memory"
            for (what, *at), rows in self._rows.items()
            if (*at,) == size
        ]

    def _next(self, what: str, size: tuple[int, int], piece: int) -> int:
        self._rows[what, *size] = max(1, piece // 2)
        return self._rows[what, *size]

    def _collect(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _defeat(self, what: str, size: tuple[int, int], error: BaseException) -> OutOfMemory:
        width, height = size
        asked, free = _asked(str(error)), free_memory(self.device)
        share = min(0.5, free / asked) if free and asked else 0.5
        fits = [max(64, int(side * share**0.5) // 64 * 64) for side in size]
        numbers = f" ({_gib(asked)} asked, {_gib(free)} free)" if free and asked else ""
        return OutOfMemory(
            f"{what} of {width} x {height} does not fit into the memory of {self.device}{numbers}, one at a time "
            f"neither. Try {fits[0]} x {fits[1]}.",
            field="width",
        )


def _asked(message: str) -> int | None:
    """Reads the bytes out of torch's own message, if it names them."""
    found = re.search(r"allocate ([\d.]+) (bytes|MiB|GiB)", message)
    return None if found is None else int(float(found[1]) * _UNITS[found[2]])


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
