"""GGUF files: the images of the same quantised weights, and what is refused."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from parity import clipgen_images, max_difference
from safetensors.torch import load_file, save_file
from single_files import original_flux

from clipgen import Pipeline, Settings
from clipgen.errors import ModelError, SettingsError
from clipgen.families import LAYOUTS
from clipgen.models import find_model, preflight
from clipgen.models import gguf as gguf_module
from clipgen.models.convert import convert_flux
from clipgen.models.gguf import read_gguf_header

WEIGHTS = Path("transformer") / "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A Flux folder, and its transformer as a GGUF file of Q8_0, F16 and F32 tensors, the rest next to it."""
    gguf = pytest.importorskip("gguf", reason="the optional package gguf is not installed")
    root = tmp_path_factory.mktemp("gguf")
    folder = tiny.save_flux(root / "folder")
    path = root / "flux-Q8_0.gguf"
    writer = gguf.GGUFWriter(str(path), "flux")
    writer.add_quantization_version(2)
    writer.add_array("some.names", ["a", "b"])
    for key, tensor in original_flux(load_file(folder / WEIGHTS)).items():
        data = tensor.numpy()
        if tensor.ndim == 2 and tensor.shape[1] % 32 == 0:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(key, gguf.quants.quantize(data, kind), raw_dtype=kind)
        else:
            writer.add_tensor(key, data.astype("float16") if tensor.ndim == 2 else data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    parts = path.with_suffix("")
    shutil.copytree(folder, parts)
    (parts / WEIGHTS).unlink()
    return folder, path


def dequantised(path: Path, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Returns the transformer's tensors as diffusers dequantises them."""
    from diffusers.models.model_loading_utils import load_gguf_checkpoint
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

    tensors = convert_flux(load_gguf_checkpoint(str(path)), config)
    return {key: dequantize_gguf_tensor(tensor).float().contiguous() for key, tensor in tensors.items()}


def test_a_gguf_file_gives_the_images_of_its_dequantised_weights(flux, tmp_path):
    from diffusers.quantizers.gguf.utils import GGUFLinear

    folder, path = flux
    pipe = Pipeline.from_pretrained(str(path), "cpu", offline=True)
    layers = [name for name, layer in pipe.family.denoiser.named_modules() if isinstance(layer, GGUFLinear)]
    assert "transformer_blocks.0.attn.to_q" in layers
    assert "proj_out" not in layers
    copy = shutil.copytree(folder, tmp_path / "copy")
    save_file(dequantised(path, pipe.family.denoiser.config), copy / WEIGHTS)
    expected = clipgen_images(Pipeline.from_pretrained(str(copy), "cpu", offline=True))
    assert max_difference(clipgen_images(pipe), expected) < 1e-5
    assert max_difference(clipgen_images(Pipeline.from_pretrained(str(folder), "cpu")), expected) > 1e-5
    with pytest.raises(SettingsError, match=r"is quantised\. Use through_unet=false"):
        next(pipe.generate(Settings("a", guidance="clip", through_unet=True)))
    assert pipe.family.widen_denoiser() is None
    half = Pipeline.from_pretrained(str(path), "cpu", "bfloat16", offline=True)
    assert half.family.widen_denoiser() == torch.float32
    assert max_difference(clipgen_images(half), expected) < 0.1  # weights rounded to bfloat16, a VAE in it


def test_a_missing_package_is_one_line_with_the_cure(flux, monkeypatch):
    monkeypatch.setattr(gguf_module, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="GGUF files need the package gguf: ") as error:
        Pipeline.from_pretrained(str(flux[1]), "cpu", offline=True)
    assert "\n" not in str(error.value)


def test_a_gguf_file_of_another_model_is_refused(tmp_path):
    path = tmp_path / "llm.gguf"
    path.write_bytes(gguf_bytes([("token_embd.weight", (2, 4), 0, 0)], data=32))
    with pytest.raises(ModelError, match="is not a checkpoint that clipgen knows"):
        preflight(find_model(str(path)), LAYOUTS)


def gguf_bytes(tensors: list[tuple[str, tuple[int, ...], int, int]], *, data: int, version: int = 3) -> bytes:
    """Returns a GGUF file without metadata; a tensor is (name, shape, type, offset)."""
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), 0)
    for name, shape, kind, offset in tensors:
        header += struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", len(shape))
        header += b"".join(struct.pack("<Q", side) for side in shape[::-1]) + struct.pack("<IQ", kind, offset)
    return header + b"\0" * (-len(header) % 32) + b"\0" * data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x04 a pickle", "is not a GGUF file"),
        (b"GGUF", "is not a GGUF file, or is truncated"),
        (gguf_bytes([], data=0, version=9), "is not a GGUF file of version 2 or 3"),
        (b"GGUF" + struct.pack("<IQQ", 3, 10**9, 0), "1,000,000,000 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**60), "the header is larger than"),
        (gguf_bytes([("a", (4,), 0, 0)], data=8), "the data of 'a' are not inside the file"),
        (gguf_bytes([("a", (4,), 0, 0), ("b", (4,), 0, 8)], data=64), "the data of 'b' are not inside the file"),
        (gguf_bytes([("a", (4,), 0, 0), ("a", (4,), 0, 16)], data=64), "two tensors of one name"),
        (gguf_bytes([("a", (4,), 99, 0)], data=64), "the quantisation type 99 of 'a' is not supported"),
        (gguf_bytes([("a", (4,), 8, 0)], data=64), "the rows of 'a' are no whole blocks"),
        (gguf_bytes([("a", (1,) * 9, 0, 0)], data=64), "'a' has 9 axes"),
    ],
)
def test_damaged_headers_are_refused(tmp_path, content, message):
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_gguf_header(path)


def test_a_valid_header_is_read(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf_bytes([("a", (3, 64), 8, 0), ("b", (5,), 0, 224)], data=256))
    assert {name: entry.shape for name, entry in read_gguf_header(path).items()} == {"a": (3, 64), "b": (5,)}
