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


def test_a_header_is_what_safetensors_wrote(tmp_path):
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


def changed(**fields):
    return {"w": {**ONE["w"], **fields}}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (ONE, b"\0" * 23, "does not match its header"),
        (ONE, b"\0" * 25, "does not match its header"),
        (changed(dtype="F31"), b"\0" * 24, "do not agree"),
        (changed(dtype=None), b"\0" * 24, "do not agree"),
        (changed(shape=[2, 4]), b"\0" * 24, "do not agree"),
        (changed(shape=[-2, -3]), b"\0" * 24, "do not agree"),
        (changed(shape=[2.0, 3.0]), b"\0" * 24, "do not agree"),
        (changed(shape=[True, 6]), b"\0" * 24, "do not agree"),
        (changed(shape=[1] * 99 + [6]), b"\0" * 24, "do not agree"),
        (changed(data_offsets=[-24, 0]), b"\0" * 24, "do not agree"),
        (changed(data_offsets=[8, 32]), b"\0" * 32, "do not follow"),
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
def test_a_header_that_lies_is_refused(tmp_path, header, data, message):
    with pytest.raises(ModelError, match=message) as error:
        read_header(write(tmp_path / "x.safetensors", header, data))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", [b"", b"\x08", b"\xff" * 8, b"\x80\x03}q\x00", (2**40).to_bytes(8, "little") + b"{}"])
def test_what_is_no_safetensors_file_is_refused(tmp_path, data):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="not a safetensors file, or is truncated"):
        read_header(path)


def test_mutated_files_are_refused_or_read(tmp_path):
    """Bytes flipped, cut and inserted anywhere: ModelError or a header, nothing else."""
    path = tmp_path / "x.safetensors"
    save_file({f"layer.{i}": torch.zeros(i, 3) for i in range(6)}, path)
    whole = path.read_bytes()
    draw = random.Random(0)
    refused = 0
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            place = draw.randrange(min(len(data), 500))
            data[place : place + draw.choice((0, 1, 1, 9))] = draw.randbytes(draw.choice((0, 1, 1, 3)))
        path.write_bytes(data)
        try:
            read_header(path)
        except ModelError:
            refused += 1
    assert refused > 300


def test_json_is_bounded(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"x": "y" * 2**20}))
    with pytest.raises(ModelError, match="larger than"):
        read_json(path)
    path.write_text('{"a": {"_attn_implementation_internal": 1}}')
    with pytest.raises(ModelError, match="would load foreign code"):
        read_json(path)
    with pytest.raises(ModelError, match=r"none.json is missing"):
        read_json(tmp_path / "none.json")


def test_weights_are_found_in_every_spelling(tmp_path):
    for name in (
        "model.safetensors",
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.fp16.safetensors",
    ):
        path = tmp_path / name
        path.touch()
        assert weight_files(tmp_path) == (None, [path])
        path.unlink()


def test_pickles_are_named_with_the_cure(tmp_path):
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(
        ModelError, match=r"pytorch_model.bin is a pickle, which can run code: convert it to .safetensors"
    ):
        weight_files(tmp_path)


def test_no_weights_at_all(tmp_path):
    with pytest.raises(ModelError, match=r"has no .safetensors file"):
        weight_files(tmp_path)


def test_shards_lie_beside_their_index(tmp_path):
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    save_file({"a": torch.zeros(1)}, tmp_path / "one.safetensors")
    save_file({"b": torch.zeros(1)}, tmp_path / "two.safetensors")
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    found, shards = weight_files(tmp_path)
    assert found == index
    assert read_headers(shards).keys() == {"a", "b"}


@pytest.mark.parametrize("name", ["../one.safetensors", "/x/one.safetensors", "gone.safetensors", "one.bin", "", 5])
def test_shards_elsewhere_are_refused(tmp_path, name):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelError, match="which is not a file in its folder"):
        weight_files(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    for name in ("one.safetensors", "two.safetensors"):
        save_file({"a": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(ModelError, match="'a' is in two files"):
        read_headers(sorted(tmp_path.glob("*")))
