"""Quantised transformers in GGUF files (of the ggml project), which diffusers' own GGUF quantiser loads.

The header is checked before the file is read: counts, sizes, and that the data of all tensors are inside the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from clipgen import home
from clipgen.errors import ModelError
from clipgen.models.header import MAX_AXES, MAX_HEADER, MAX_TENSORS, Entry

if TYPE_CHECKING:
    import torch

    from clipgen.models.layout import CheckedNetwork

MAGIC, VERSIONS = b"GGUF", (2, 3)
MAX_METADATA = 1_000  # key-value pairs
ALIGNMENT = "general.alignment"
# Type of a tensor -> values per block, bytes per block: those that diffusers reads.
BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    30: (1, 2),  # F32, F16, BF16
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),  # Q4_0, Q4_1, Q5_0, Q5_1, Q8_0
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),  # Q2_K to Q6_K
}
SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # type of a metadata value -> bytes
STRING, ARRAY, UINT32 = 8, 9, 4
NOT_QUANTISED = "proj_out"  # kept in the model's dtype, which the family reads from it


def read_gguf_header(path: Path) -> dict[str, Entry]:
    """Returns the tensors of a GGUF file with their shapes; raises ModelError for a damaged or unsupported file."""
    with path.open("rb") as file:
        try:
            return _Header(file, path).tensors()
        except (struct.error, UnicodeDecodeError) as error:
            raise ModelError(f"'{path.name}' is not a GGUF file, or is truncated.") from error


class _Header:
    """Reads the header of a GGUF file; numbers are little-endian."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.name, self.size = file, path.name, path.stat().st_size

    def tensors(self) -> dict[str, Entry]:
        if self.file.read(4) != MAGIC or self._number("<I") not in VERSIONS:
            raise ModelError(f"'{self.name}' is not a GGUF file of version 2 or 3.")
        count, pairs = self._number("<Q"), self._number("<Q")
        if count > MAX_TENSORS or pairs > MAX_METADATA:
            raise ModelError(f"'{self.name}' has {count:,} tensors and {pairs:,} metadata values: too many.")
        alignment = 32
        for _ in range(pairs):
            key, value = self._string(), self._value(self._number("<I"))
            alignment = value if key == ALIGNMENT and isinstance(value, int) else alignment
        infos = [self._tensor() for _ in range(count)]
        self._check_ranges(infos, alignment)
        return {name: Entry(f"GGUF{kind}", shape) for name, kind, shape, _ in infos}

    def _tensor(self) -> tuple[str, int, tuple[int, ...], int]:
        """Returns name, type, shape and offset of the next tensor."""
        name, axes = self._string(), self._number("<I")
        if axes > MAX_AXES:
            raise ModelError(f"'{self.name}': '{name[:80]}' has {axes} axes.")
        shape = tuple(self._number("<Q") for _ in range(axes))[::-1]  # GGUF has the last axis first
        kind, offset = self._number("<I"), self._number("<Q")
        if kind not in BLOCKS:
            raise ModelError(f"'{self.name}': the quantisation type {kind} of '{name[:80]}' is not supported.")
        if shape and shape[-1] % BLOCKS[kind][0]:
            raise ModelError(f"'{self.name}': the rows of '{name[:80]}' are no whole blocks.")
        return name, kind, shape, offset

    def _check_ranges(self, infos: list[tuple[str, int, tuple[int, ...], int]], alignment: int) -> None:
        """Raises ModelError for duplicate names, and if the data of a tensor overlap others or the file's end."""
        if len({name for name, *_ in infos}) < len(infos):
            raise ModelError(f"'{self.name}' has two tensors of one name.")
        if not 0 < alignment <= MAX_HEADER:
            raise ModelError(f"'{self.name}': the alignment {alignment} is not valid.")
        data = -(-self.file.tell() // alignment) * alignment
        end = 0
        for name, kind, shape, offset in sorted(infos, key=lambda info: info[3]):
            values, size = BLOCKS[kind]
            if offset < end or data + (end := offset + prod(shape) // values * size) > self.size:
                raise ModelError(f"'{self.name}': the data of '{name[:80]}' are not inside the file.")

    def _number(self, kind: str) -> int:
        (number,) = struct.unpack(kind, self.file.read(struct.calcsize(kind)))
        return int(number)

    def _string(self) -> str:
        return self._bytes(self._number("<Q")).decode()

    def _bytes(self, length: int) -> bytes:
        if length > MAX_HEADER or self.file.tell() + length > min(self.size, MAX_HEADER):
            raise ModelError(f"'{self.name}': the header is larger than {MAX_HEADER:,} bytes, or truncated.")
        return self.file.read(length)

    def _value(self, kind: int, *, nested: bool = False) -> int | None:
        """Reads a metadata value; returns it if it is a 32-bit integer, else None."""
        if kind == UINT32:
            return self._number("<I")
        if kind == STRING:
            self._string()
        elif kind == ARRAY and not nested:
            inner, length = self._number("<I"), self._number("<Q")
            if inner in SCALARS:
                self._bytes(SCALARS[inner] * length)
            else:
                for _ in range(min(length, MAX_HEADER)):
                    self._value(inner, nested=True)
        elif kind in SCALARS:
            self._bytes(SCALARS[kind])
        else:
            raise ModelError(f"'{self.name}': a metadata value has the unknown type {kind}.")
        return None


def load_gguf(network: CheckedNetwork, device: torch.device, dtype: torch.dtype) -> Iterator[int]:
    """Loads a checked network from its GGUF file; yields the bytes of each tensor once it is on the device.

    Weights of linear layers stay quantised and are converted to `dtype` at each use; other tensors are converted now.
    Raises ModelError if the package gguf is missing, and for values that are not finite.
    """
    if find_spec("gguf") is None:
        raise ModelError(f"GGUF files need the package gguf: {home.install_command('gguf')}", field="model")
    import torch
    from diffusers.models.model_loading_utils import load_gguf_checkpoint
    from diffusers.quantizers.gguf.utils import GGUFParameter, _replace_with_gguf_linear, dequantize_gguf_tensor

    assert network.convert is not None, "a GGUF file has the names of the original repository"
    path, module = network.paths[0], network.module
    tensors: dict[str, Any] = network.convert(load_gguf_checkpoint(str(path)))
    linear = {f"{name}.weight" for name, layer in module.named_modules() if isinstance(layer, torch.nn.Linear)}
    quantised = {
        key: tensor
        for key, tensor in tensors.items()
        if isinstance(tensor, GGUFParameter) and key in linear - {f"{NOT_QUANTISED}.weight"}
    }
    _replace_with_gguf_linear(module, dtype, quantised)
    for key, tensor in tensors.items():
        layer, _, kind = key.rpartition(".")
        parameter = tensor
        if key not in quantised:
            plain = dequantize_gguf_tensor(tensor).to(dtype)
            if plain.numel() and not torch.isfinite(torch.stack(torch.aminmax(plain))).all():
                raise ModelError(f"'{path.name}': '{key[:80]}' holds numbers that are not finite in {dtype}.")
            parameter = torch.nn.Parameter(plain, requires_grad=False)
        module.get_submodule(layer)._parameters[kind] = parameter.to(device)
        yield tensor.nbytes
