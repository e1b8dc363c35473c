"""Small images and records for the tests of image_file, written in the format of each app."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import piexif
import piexif.helper
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clipgen.image_file import make_record
from clipgen.sampling.schedulers import SCHEDULERS
from clipgen.settings.settings import Settings

HASH = "0f3a9c1d2e" + "0" * 54
MODEL = {"name": "storybook", "hash": HASH, "family": "stable_diffusion"}
RUNTIME = {
    "clipgen": "0.1.0",
    "torch": "2.13.0",
    "diffusers": "0.42.1",
    "device": "cpu",
    "dtype": "float32",
    "rng": "cpu",
}
CLIP = {
    "model": "storybook/clip",
    "similarity": 0.312,
    "score": 0.78,
    "percentile": 97.4,
    "captions": 1000,
    "self_graded": False,
    "curve": [[0, 0.1, None], [29, 0.312, None]],
}
FOX = Settings(
    prompt="a fox in snow",
    negative_prompt="blurry",
    seed=42,
    steps=30,
    width=512,
    height=512,
    scheduler="dpm++_2m_karras",
    guidance_scale=5.0,
)


def record_of(settings: Settings = FOX, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"seed": settings.seed or 0, "clip": CLIP, "model": MODEL, "runtime": RUNTIME}
    return make_record(settings, **(values | changes))


def sample_image() -> Image.Image:
    return Image.effect_noise((8, 8), 60).convert("RGB")


def png(texts: Mapping[str, str], path: Path) -> Path:
    """Writes a PNG as Python apps do: a tEXt chunk if the text is latin-1, else iTXt."""
    info = PngInfo()
    for keyword, text in texts.items():
        info.add_text(keyword, text)
    sample_image().save(path, "PNG", pnginfo=info)
    return path


def with_comment(text: str, path: Path) -> Path:
    """Writes a JPEG or WebP as A1111 and Forge do: piexif's UserComment."""
    comment = piexif.helper.UserComment.dump(text, encoding="unicode")
    return with_exif(piexif.dump({"Exif": {piexif.ExifIFD.UserComment: comment}}), path)


def with_tags(tags: Mapping[int, str], path: Path) -> Path:
    """Writes a JPEG or WebP as ComfyUI and Fooocus do: Pillow's Exif, all in IFD0."""
    exif = Image.Exif()
    for tag, text in tags.items():
        exif[tag] = text
    return with_exif(exif.tobytes(), path)


def with_exif(exif: bytes, path: Path) -> Path:
    buffer = io.BytesIO()
    sample_image().save(buffer, "JPEG" if path.suffix == ".jpg" else "WEBP", exif=exif)
    path.write_bytes(buffer.getvalue())
    return path


PIECES = [
    *"aZ09 .,:;'\"\\/<>()[]{}|_-+$%&#@!?=\n\t",
    "é", "ß", "雪", "日本", "🦊", "👩\u200d🚀", "\u202e", "\u0301", "\ufffe", "\uffff", "\x7f"[:0], "\u2028", "\u00a0",
    "Negative prompt: ", "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1", "\nSteps: 1, Seed: 2, Size: 8x8",
    "poster: big, text: red, size: small", "<lora:x:1>", "]]>", "<!DOCTYPE x>", "&amp;", "{a|b}", "__name__", "BREAK",
    '{"schema": "clipgen/1"}', "a fox in snow", "UNICODE\n", "prompt:{}",
]  # fmt: skip


def random_text(rng: random.Random, longest: int) -> str:
    text = "".join(rng.choice(PIECES) for _ in range(rng.randint(1, longest)))[:2_000]
    return text if text.strip() else "a" + text[1:]


def random_settings(rng: random.Random) -> Settings:
    """Returns random valid Settings over the full range of every field."""

    def maybe(value: Any) -> Any:
        return rng.choice([None, value])

    start, stop = sorted(rng.sample(range(1001), 2))
    scheduler = maybe(rng.choice(list(SCHEDULERS)))
    most = SCHEDULERS[scheduler].max_steps if scheduler else 150
    return Settings(
        prompt=random_text(rng, rng.choice([3, 3, 40, 40, 40, 2_000])),
        negative_prompt=rng.choice(["", random_text(rng, 20)]),
        prompt_syntax=rng.choice(["a1111", "plain"]),
        long_prompt=rng.choice(["cut", "chunk", "error"]),
        prompt_template=maybe(random_text(rng, 20)),
        model=rng.choice(["storybook", "org/name", "org/name@main", "./folder", "./é 雪"]),
        preset=maybe("fast-2_x"),
        seed=rng.choice([0, 1, 2**32, 2**63 - 1, rng.randrange(2**63)]),
        images=rng.randint(1, 1000),
        steps=maybe(rng.randint(1, most)),
        width=maybe(8 * rng.randint(8, 256)),
        height=maybe(8 * rng.randint(8, 256)),
        scheduler=scheduler,
        guidance_scale=maybe(rng.choice([0.0, 50.0, rng.uniform(0, 50), 1e-300])),
        eta=maybe(rng.random()),
        cfg_start=start / 1000,
        cfg_stop=stop / 1000,
        guidance_rescale=rng.random(),
        clip_skip=rng.randint(0, 11),
        lora=tuple(rng.sample(["snow:0.5", "./é 雪.safetensors:-1", "my style:1"], rng.randint(0, 3))),
        embedding=tuple(rng.sample(["snow", "./é 雪.safetensors"], rng.randint(0, 2))),
    )
