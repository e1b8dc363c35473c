"""The metadata of saved images follows the file formats and is readable by piexif, Pillow and A1111."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path

import piexif
import piexif.helper
import pytest
from PIL import Image

from clipgen.hashing import sha256_of
from clipgen.image_file import SUFFIXES, Format, encode_image, fit_record, parameters_block, read_chunks, read_settings
from clipgen.image_file.exif import build_exif
from clipgen.image_file.record import to_json
from clipgen.settings.settings import Note, Settings
from image_file.samples import CLIP, FOX, MODEL, random_settings, record_of, sample_image

FORMATS: tuple[Format, ...] = ("png", "jpeg", "webp")
SOURCE_TYPE = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
CREATOR = "{http://ns.adobe.com/xap/1.0/}CreatorTool"
MARK = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], 8
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", data, at + 8 + size)[0] == zlib.crc32(kind + body)
        chunks.append((kind, body))
        at += 12 + size
    return chunks


def parse_as_a1111(text: str) -> tuple[str, str, dict[str, str]]:
    """Parses a block as A1111 1.10 does, including its unbounded pattern."""
    pattern = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
    *lines, last = text.strip().split("\n")
    if len(pattern.findall(last)) < 3:
        lines, last = [*lines, last], ""
    prompt, negative, done = "", "", False
    for line in (line.strip() for line in lines):
        if line.startswith("Negative prompt:"):
            done, line = True, line[16:].strip()
        if done:
            negative += ("\n" if negative else "") + line
        else:
            prompt += ("\n" if prompt else "") + line
    return prompt, negative, dict(pattern.findall(last))


def save(tmp_path: Path, format: Format, **options: object) -> Path:
    path = tmp_path / f"fox{SUFFIXES[format]}"
    record = options.pop("record", None) or record_of()
    path.write_bytes(encode_image(sample_image(), record, format=format, **options))  # type: ignore[arg-type]
    return path


def test_the_block_has_the_a1111_format() -> None:
    assert parameters_block(record_of()) == (
        "a fox in snow\n"
        "Negative prompt: blurry\n"
        "Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5, Seed: 42, Size: 512x512, "
        "Model hash: 0f3a9c1d2e, Model: storybook, RNG: CPU, CLIP model: storybook/clip, CLIP similarity: 0.312, "
        "CLIP score: 0.78, CLIP percentile: 97.4, Version: clipgen 0.1.0"
    )


def test_missing_values_are_left_out_of_the_block() -> None:
    record = record_of(Settings(prompt="a fox"), clip=None, model={**MODEL, "hash": None})
    assert parameters_block(record) == "a fox\nSeed: 0, Model: storybook, RNG: CPU, Version: clipgen 0.1.0"


@pytest.mark.parametrize(
    ("name", "written"),
    [("a,b", '"a,b"'), ("ab:c", '"ab:c"'), ('say "hi"', r'"say \"hi\""'), ("é 雪", "é 雪"), ("a, é", '"a, é"')],
)
def test_values_with_punctuation_are_json_strings(name: str, written: str) -> None:
    assert f", Model: {written}, " in parameters_block(record_of(model={**MODEL, "name": name}))


def test_a_prompt_with_colons_is_not_parsed_as_values() -> None:
    prompt = "poster: big, text: red, size: small"
    read, negative, values = parse_as_a1111(parameters_block(record_of(Settings(prompt=prompt), clip=None)))
    assert (read, negative) == (prompt, "")
    assert values["Seed"] == "0"


def test_a1111_parses_the_block() -> None:
    prompt, negative, values = parse_as_a1111(parameters_block(record_of(FOX.replace(prompt="one\ntwo: 2,\nthree"))))
    assert (prompt, negative) == ("one\ntwo: 2,\nthree", "blurry")
    assert values["Sampler"] == "DPM++ 2M"
    assert values["Schedule type"] == "Karras"
    assert (values["Steps"], values["CFG scale"], values["Seed"], values["Size"]) == ("30", "5", "42", "512x512")


def test_a_png_has_the_block_the_record_and_xmp_before_the_pixels(tmp_path: Path) -> None:
    chunks = png_chunks(save(tmp_path, "png").read_bytes())
    assert [kind for kind, _ in chunks] == [b"IHDR", b"tEXt", b"iTXt", b"iTXt", b"IDAT", b"IEND"]
    assert chunks[1][1] == b"parameters\0" + parameters_block(record_of()).encode("latin-1")
    assert chunks[2][1] == b"clipgen\0\0\0\0\0" + to_json(record_of()).encode()  # not compressed, no language
    assert chunks[3][1].startswith(b"XML:com.adobe.xmp\0\0\0\0\0<?xpacket")


def test_a_block_that_is_not_latin_1_is_an_itxt_chunk(tmp_path: Path) -> None:
    record = record_of(FOX.replace(prompt="雪の中の狐 🦊"))
    chunks = png_chunks(save(tmp_path, "png", record=record).read_bytes())
    assert chunks[1] == (b"iTXt", b"parameters\0\0\0\0\0" + parameters_block(record).encode())


def test_the_user_comment_has_type_7_and_its_length_in_bytes() -> None:
    data, text = build_exif("clipgen 0.1.0", "fox 雪"), b"UNICODE\0" + "fox 雪".encode("utf-16-be")
    assert data[:8] == b"MM\0*\0\0\0\x08"
    count, tag, kind, size, at = struct.unpack_from(">HHHII", data, 8)
    assert (count, tag, kind, size) == (2, 0x0131, 2, 14)
    assert data[at : at + size] == b"clipgen 0.1.0\0"
    tag, kind, size, start = struct.unpack_from(">HHII", data, 22)
    assert (tag, kind, size) == (0x8769, 4, 1)
    count, tag, kind, size, at = struct.unpack_from(">HHHII", data, start)
    assert (count, tag, kind, size) == (1, 0x9286, 7, len(text))
    assert data[at : at + size] == text


@pytest.mark.parametrize("format", ["jpeg", "webp"])
@pytest.mark.parametrize("prompt", ["a fox in snow", "雪の中の狐 🦊", "é" * 1999])
def test_piexif_reads_the_block(tmp_path: Path, format: Format, prompt: str) -> None:
    record = record_of(FOX.replace(prompt=prompt))
    path = save(tmp_path, format, record=record)
    with Image.open(path) as image:
        exif = piexif.load(image.info["exif"])
        assert image.getexif()[0x0131] == "clipgen 0.1.0"
    assert piexif.helper.UserComment.load(exif["Exif"][piexif.ExifIFD.UserComment]) == parameters_block(record)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize(
    ("inputs", "mark"),
    [({}, "trainedAlgorithmicMedia"), ({"vary": "0" * 64}, "compositeWithTrainedAlgorithmicMedia")],
)
def test_every_file_has_the_iptc_digital_source_type(
    tmp_path: Path, format: Format, metadata: bool, inputs: dict[str, str], mark: str
) -> None:
    path = save(tmp_path, format, record=record_of(inputs=inputs), metadata=metadata)
    root = ET.fromstring(read_chunks(path)["XML:com.adobe.xmp"])
    assert root.findtext(f".//{SOURCE_TYPE}") == MARK + mark
    assert root.findtext(f".//{CREATOR}") == "clipgen 0.1.0"
    with Image.open(path) as image:
        xmp = image.info["xmp"]
    assert mark.encode() in (xmp.encode() if isinstance(xmp, str) else xmp)


@pytest.mark.parametrize("format", FORMATS)
def test_without_metadata_no_setting_is_in_the_file(tmp_path: Path, format: Format) -> None:
    data = save(tmp_path, format, metadata=False).read_bytes()
    for word in ("fox", "blurry", "Steps", "parameters", "record", "storybook", "UNICODE"):
        assert word.encode() not in data
        assert word.encode("utf-16-be") not in data
    assert (b"clipgen 0.1.0") in data


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_image_and_record_give_the_same_bytes(format: Format) -> None:
    image = sample_image()
    first = encode_image(image, record_of(), format=format)
    assert first == encode_image(image, json.loads(to_json(record_of())), format=format)


def test_a_png_keeps_every_pixel() -> None:
    image = sample_image()
    with Image.open(io.BytesIO(encode_image(image, record_of(), format="png"))) as again:
        assert again.tobytes() == image.tobytes()


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_quality_changes_the_file_size(format: Format) -> None:
    image = sample_image().resize((64, 64))
    sizes = [len(encode_image(image, record_of(), format=format, quality=quality)) for quality in (10, 92, 100)]
    assert sizes == sorted(set(sizes))


def test_a_record_too_long_for_jpeg_loses_the_curve_or_is_left_out(tmp_path: Path) -> None:
    curve = record_of(clip={**CLIP, "curve": [[step, 0.123456789, 0.987654321] for step in range(3_000)]})
    kept, notes = fit_record(curve, "jpeg")
    assert kept is not None
    assert kept["clip"] == {**CLIP, "curve": None}
    assert [note.code for note in notes] == ["curve-left-out"]
    assert read_settings(save(tmp_path, "jpeg", record=curve)).record == kept
    lost = record_of(warnings=[Note("prompt-cut", "prompt", "x" * 70_000)])
    kept, notes = fit_record(lost, "jpeg")
    assert kept is None
    assert [note.code for note in notes] == ["record-left-out"]
    restored = read_settings(save(tmp_path, "jpeg", record=lost))  # the block is still there
    assert (restored.source, restored.record, restored.settings) == ("clipgen", None, FOX)


@pytest.mark.parametrize("format", ["png", "webp"])
def test_other_formats_keep_a_long_record(tmp_path: Path, format: Format) -> None:
    record = record_of(warnings=[Note("prompt-cut", "prompt", "x" * 70_000)])
    assert fit_record(record, format) == (record, [])
    assert read_settings(save(tmp_path, format, record=record)).record == record


@pytest.mark.parametrize(
    "model", ["/home/ann/secret/dream", "~/secret/dream", "../secret/dream/", r"C:\Users\ann\secret\dream", "./dream"]
)
@pytest.mark.parametrize("format", FORMATS)
def test_a_local_model_leaves_its_folder_out_of_the_file(tmp_path: Path, model: str, format: Format) -> None:
    record = record_of(FOX.replace(model=model), model={**MODEL, "name": model})
    assert record["settings"]["model"] == "./dream"
    assert ", Model: dream, " in parameters_block(record)
    path = save(tmp_path, format, record=record)
    for word in ("ann", "secret", "home", "Users"):
        assert word not in "".join(read_chunks(path).values())
    restored = read_settings(path)
    assert restored.settings.model == "./dream"
    assert restored.record is not None
    assert restored.record["model"]["hash"] == MODEL["hash"]


def test_a_record_is_one_line_of_sorted_json() -> None:
    record = record_of(warnings=[Note("prompt-cut", "prompt", "in snow")], job="0123456789abcdef")
    assert list(json.loads(to_json(record))) == sorted(record)
    assert "\n" not in to_json(record)
    assert record["schema"] == "clipgen/1"
    assert set(record["settings"]) == set(FOX.to_dict())
    assert record["warnings"] == [{"code": "prompt-cut", "field": "prompt", "message": "in snow"}]
    assert record["job"] == "0123456789abcdef"


def test_a_record_is_independent_of_its_arguments() -> None:
    clip = {"curve": [[0, 0.1, None]]}
    record = record_of(clip=clip)
    clip["curve"].append([1, 0.2, None])
    assert record["clip"]["curve"] == [[0, 0.1, None]]


def test_hash_of_a_file_and_of_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == sha256_of(b"abc")
    assert sha256_of(b"abc").startswith("ba7816bf")


@pytest.mark.parametrize("format", FORMATS)
def test_a_thousand_random_settings_are_read_back_unchanged(tmp_path: Path, format: Format) -> None:
    rng, image = random.Random(format), sample_image()
    for number in range(1_000):
        path = tmp_path / f"{number}{SUFFIXES[format]}"
        settings = random_settings(rng)
        assert settings.seed is not None
        record = record_of(settings)
        path.write_bytes(encode_image(image, record, format=format))
        restored = read_settings(path)
        assert restored.settings == settings
        assert (restored.source, restored.warnings, restored.unknown) == ("clipgen", [], {})
        assert restored.record == record


def test_settings_without_a_seed_are_read_back_with_the_seed_of_the_image(tmp_path: Path) -> None:
    settings = FOX.replace(seed=None, images=4)
    path = save(tmp_path, "png", record=record_of(settings, seed=45))
    assert read_settings(path).settings == settings.replace(seed=45)
