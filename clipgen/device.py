"""Devices, dtypes and batch sizes, and the fallback when memory runs out."""

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

AUTO, AUTO_FAST = "auto", "auto-fast"
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
# Pixels of one batch. On a CPU, a batch of 8 images of 128 x 128 takes 60% of the time of 8 single ones; from 256 x 256
# on a batch saves nothing.
BATCH_PIXELS = {"cpu": 8 * 128 * 128, "mps": 4 * 512 * 512, "cuda": 16 * 512 * 512}
MAX_BATCH = 64
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
_UNITS = {"bytes": 1, "MiB": 2**20, "GiB": 2**30}


def set_library_switches() -> None:
    """Sets environment variables so that diffusers and transformers run no remote code, send no telemetry and log less.

    They take effect only if these libraries are not imported yet.
    """
    os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(name, "error")


@contextmanager
def collection_off() -> Iterator[None]:
    """Pauses garbage collection, because importing diffusers creates half a million objects and no garbage."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def devices() -> list[str]:
    """Returns the names of the devices of this machine, the fastest first and `cpu` last."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def pick_device(name: str = "auto") -> torch.device:
    """Returns the device of that name, for `auto` the fastest; raises SettingsError with the available names."""
    available = devices()
    device = {"auto": available[0], "cuda": "cuda:0"}.get(name, name)
    if device not in available:
        raise SettingsError(
            f"Device '{name[:60]}' is not available. Devices: auto, {', '.join(available)}.",
            field="device",
            allowed=["auto", *available],
        )
    return torch.device(device)


def pick_dtype(name: str, device: torch.device, prefers_bfloat16: bool = False) -> torch.dtype:
    """Returns the dtype of that name; `auto` is float16 on CUDA and float32 elsewhere.

    With `prefers_bfloat16`, for models that were trained in it, `auto` is bfloat16 on CUDA cards that compute in it.
    `auto-fast` is `auto`, but bfloat16 on CPUs that compute in it. Raises SettingsError.
    """
    if name == AUTO_FAST and device.type == "cpu" and cpu_computes_in_bfloat16():
        return torch.bfloat16
    if name in (AUTO, AUTO_FAST):
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if prefers_bfloat16 and cuda_computes_in_bfloat16() else torch.float16
    if name not in DTYPES:
        names = [AUTO, AUTO_FAST, *DTYPES]
        raise SettingsError(f"Unknown dtype '{name[:60]}'. Dtypes: {', '.join(names)}.", field="dtype", allowed=names)
    return DTYPES[name]


def cpu_computes_in_bfloat16() -> bool:
    """Returns whether this CPU has instructions for bfloat16: AVX512-BF16 or AMX. Without them bfloat16 is slower."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def cuda_computes_in_bfloat16() -> bool:
    """Returns whether the current CUDA card has instructions for bfloat16; False without a card."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def wider_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype | None:
    """Returns the dtype with a wider range to try when `dtype` has overflowed; None after float32.

    float16 is followed by bfloat16, which takes no more memory, unless it is a CUDA card that does not compute in it.
    """
    if dtype == torch.float16 and (device.type != "cuda" or cuda_computes_in_bfloat16()):
        return torch.bfloat16
    return None if dtype == torch.float32 else torch.float32


def release_memory(device: torch.device) -> None:
    """Collects garbage and returns cached blocks to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def check_compiles(device: torch.device) -> None:
    """Raises SettingsError for a device on which compiling a denoiser costs more than it gains."""
    if device.type != "cuda":
        raise SettingsError(
            f"compile works on CUDA cards, got device '{device}': there a minute of compiling gains 10% of a step",
            field="compile",
        )


def images_at_once(width: int, height: int, device: torch.device) -> int:
    """Returns the number of images of that size that are denoised as one batch."""
    return max(1, min(MAX_BATCH, BATCH_PIXELS[device.type] // (width * height)))


def free_memory(device: torch.device) -> int | None:
    """Returns the free memory of a device in bytes; None if the system does not report it."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    available = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text("ascii"))
    system = [] if available is None else [int(available[1]) * 1024]
    return min(system + _cgroup_free(), default=None)


def _cgroup_free() -> list[int]:
    """Returns the bytes below the memory limit of the container, [] without a limit."""
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if not limit.exists() or not (text := limit.read_text("ascii").strip()).isdigit():
        return []
    return [max(0, int(text) - int(used.read_text("ascii")))]


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error of any device means that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def check_memory(needed: int, device: torch.device, model: str) -> None:
    """Raises OutOfMemory if a model needs more bytes than the device has free."""
    free = free_memory(device)
    if free is not None and needed > free:
        raise OutOfMemory(f"Model '{model}' needs {_gib(needed)} of memory, {_gib(free)} are free on {device}.")


@contextmanager
def raise_out_of_memory(what: str, device: torch.device) -> Iterator[None]:
    """Raises OutOfMemory with the message that `what` does not fit, for any out-of-memory error inside."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"{what} does not fit into the memory of {device}.") from error


class MemoryFallback:
    """Runs a function on a batch and, if memory runs out, on smaller and smaller parts of it.

    First the garbage is collected and the call repeated; then the part is halved, down to one row; then a last resort
    of the caller is tried, if there is one; then OutOfMemory is raised. The part that fits is remembered for each image
    size. A repeated call gets the same inputs, so the image does not change, except by a last resort.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._rows: dict[tuple[str, int, int], int] = {}
        self._last_resorts: dict[tuple[str, int, int], str] = {}

    def run(
        self,
        what: str,
        size: tuple[int, int],
        call: Callable[..., Tensor],
        *rows: Tensor,
        last_resort: Callable[[], str | None] = lambda: None,
    ) -> Tensor:
        """Returns `call(*rows)`, the results of the parts concatenated along the first axis.

        `rows` are tensors of equal first axis. The part that fits is remembered by `what` and `size`, (width, height)
        in pixels. `last_resort` makes `call` need less memory and returns how, or None if it cannot. Raises
        OutOfMemory.
        """
        total = len(rows[0])
        part_size = self._rows.get((what, *size), total)
        retried = part_size < total
        while True:
            try:
                parts = [call(*part) for part in zip(*(torch.split(tensor, part_size) for tensor in rows), strict=True)]
                return parts[0] if len(parts) == 1 else torch.cat(parts)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if retried and part_size == 1:
                    if (how := last_resort()) is None:
                        raise self._out_of_memory(what, size, error) from error
                    self._last_resorts[what, *size] = how
            part_size = self._halve(what, size, part_size) if retried else part_size
            retried = True
            release_memory(self.device)

    def measures(self, size: tuple[int, int]) -> list[str]:
        """Returns one line per function that ran in parts, or otherwise, at this image size."""
        measures = [(key, f"{rows} at a time") for key, rows in self._rows.items()]
        measures += self._last_resorts.items()
        return [f"{what} ran {how} to fit into memory" for (what, *at), how in measures if (*at,) == size]

    def _halve(self, what: str, size: tuple[int, int], part_size: int) -> int:
        self._rows[what, *size] = max(1, part_size // 2)
        return self._rows[what, *size]

    def _out_of_memory(self, what: str, size: tuple[int, int], error: BaseException) -> OutOfMemory:
        width, height = size
        requested, free = _requested_bytes(str(error)), free_memory(self.device)
        share = min(0.5, free / requested) if free and requested else 0.5
        fits = [max(64, int(side * share**0.5) // 64 * 64) for side in size]
        numbers = f" ({_gib(requested)} requested, {_gib(free)} free)" if free and requested else ""
        return OutOfMemory(
            f"{what} of {width} x {height} does not fit into the memory of {self.device}{numbers}, even one image "
            f"at a time. Try {fits[0]} x {fits[1]}.",
            field="width",
        )


def _requested_bytes(message: str) -> int | None:
    """Returns the number of bytes in torch's error message, None if there is none."""
    match = re.search(r"allocate ([\d.]+) (bytes|MiB|GiB)", message)
    return None if match is None else int(float(match[1]) * _UNITS[match[2]])


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
