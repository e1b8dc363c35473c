from __future__ import annotations

import json
import random

import pytest
import torch
from safetensors.torch import save_file

from clipgen.errors import ModelError
from clipgen.models.header import Entry, read_header, read_headers, read_json, weight_files

ONE = {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}


def write(path, header, data=b"\0" * 24):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_read_header_returns_the_tensors_of_the_file(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {
        "a": torch.zeros(2, 3),
        "b": torch.zeros(4, dtype=torch.bfloat16),
        "c": torch.zeros(()),
        "d": torch.zeros(0, 5),
    }
    save_file(tensors, path, metadata={"format": "pt"})
    assert read_header(path) == {
        "a": Entry("F32", (2, 3)),
        "b": Entry("BF16", (4,)),
        "c": Entry("F32", ()),
        "d": Entry("F32", (0, 5)),
    }


def with_fields(**fields):
    return {"w": {**ONE["w"], **fields}}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (ONE, b"\0" * 23, "does not match its header"),
        (ONE, b"\0" * 25, "does not match its header"),
        (with_fields(dtype="F31"), b"\0" * 24, "do not agree"),
        (with_fields(dtype=None), b"\0" * 24, "do not agree"),
        (with_fields(shape=[2, 4]), b"\0" * 24, "do not agree"),
        (with_fields(shape=[-2, -3]), b"\0" * 24, "do not agree"),
        (with_fields(shape=[2.0, 3.0]), b"\0" * 24, "do not agree"),
        (with_fields(shape=[True, 6]), b"\0" * 24, "do not agree"),
        (with_fields(shape=[1] * 99 + [6]), b"\0" * 24, "do not agree"),
        (with_fields(data_offsets=[-24, 0]), b"\0" * 24, "do not agree"),
        (with_fields(data_offsets=[8, 32]), b"\0" * 32, "do not follow"),
        ({**ONE, "v": ONE["w"]}, b"\0" * 24, "do not follow"),
        ({"w": 1}, b"\0" * 24, "do not agree"),
        ([], b"", "not a JSON object"),
        (b'{"w": {}, "w": {}}', b"", "a key occurs twice"),
        (b'{"auto_map": {}}', b"", "would load foreign code"),
        (b"{", b"", "is broken"),
        (b"\xff\xfe", b"", "is broken"),
        (b"[" * 100_000, b"", "nested deeper"),
        (b'{"w": ' + b"9" * 5000 + b"}", b"", "more than 20 digits"),
        (
            {f"t{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(20_001)},
            b"",
            "more than 20,000",
        ),
    ],
)
def test_an_inconsistent_header_raises_an_error(tmp_path, header, data, message):
    with pytest.raises(ModelError, match=message) as error:
        read_header(write(tmp_path / "x.safetensors", header, data))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", [b"", b"\x08", b"\xff" * 8, b"\x80\x03}q\x00", (2**40).to_bytes(8, "little") + b"{}"])
def test_another_file_format_raises_an_error(tmp_path, data):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="not a safetensors file, or is truncated"):
        read_header(path)


def test_mutated_files_raise_model_error_or_load(tmp_path):
    """Random changes, deletions and insertions of bytes give a header or a ModelError, and no other exception."""
    path = tmp_path / "x.safetensors"
    save_file({f"layer.{i}": torch.zeros(i, 3) for i in range(6)}, path)
    original = path.read_bytes()
    rng = random.Random(0)
    rejections = 0
    for _ in range(500):
        data = bytearray(original)
        for _ in range(rng.randint(1, 4)):
            offset = rng.randrange(min(len(data), 500))
            data[offset : offset + rng.choice((0, 1, 1, 9))] = rng.randbytes(rng.choice((0, 1, 1, 3)))
        path.write_bytes(data)
        try:
            read_header(path)
        except ModelError:
            rejections += 1
    assert rejections > 300


def test_read_json_limits_size_and_rejects_code(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"x": "y" * 2**20}))
    with pytest.raises(ModelError, match="larger than"):
        read_json(path)
    path.write_text('{"a": {"_attn_implementation_internal": 1}}')
    with pytest.raises(ModelError, match="would load foreign code"):
        read_json(path)
    with pytest.raises(ModelError, match=r"none.json is missing"):
        read_json(tmp_path / "none.json")


def test_weight_files_accepts_every_standard_file_name(tmp_path):
    for name in (
        "model.safetensors",
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
    ):
        path = tmp_path / name
        path.touch()
        assert weight_files(tmp_path) == (None, [path])
        path.unlink()


def test_a_pickle_raises_an_error_that_names_the_conversion(tmp_path):
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(
        ModelError, match=r"pytorch_model.bin is a pickle, which can run code: convert it to .safetensors"
    ):
        weight_files(tmp_path)


def test_a_folder_without_weights_raises_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"has no .safetensors file"):
        weight_files(tmp_path)


def test_sharded_weights_are_read_through_their_index(tmp_path):
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    save_file({"a": torch.zeros(1)}, tmp_path / "one.safetensors")
    save_file({"b": torch.zeros(1)}, tmp_path / "two.safetensors")
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    index_path, shards = weight_files(tmp_path)
    assert index_path == index
    assert read_headers(shards).keys() == {"a", "b"}


@pytest.mark.parametrize("name", ["../one.safetensors", "/x/one.safetensors", "gone.safetensors", "one.bin", "", 5])
def test_a_shard_outside_the_folder_raises_an_error(tmp_path, name):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelError, match="which is not a file in its folder"):
        weight_files(tmp_path)


def test_a_tensor_in_two_shards_raises_an_error(tmp_path):
    for name in ("one.safetensors", "two.safetensors"):
        save_file({"a": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(ModelError, match="'a' is in two files"):
        read_headers(sorted(tmp_path.glob("*")))
