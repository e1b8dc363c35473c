"""The output panel: the state of a job, a preview, or a finished image with its facts and score."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from clipgen.report.score_text import likeness_line, percent, rating
from clipgen.settings.settings import Note

from ..image_info import ImageInfo
from .curve import curve_chart

if TYPE_CHECKING:
    from PIL.Image import Image

EXAMPLES = (
    ("🦊", "a fox in snow"),
    ("🚗", "a red car in the city"),
    ("🐈", "a cat on a beach"),
    ("🦉", "an owl at night"),
)
FILE_URL = "/gradio_api/file="


def empty() -> str:
    """Returns the panel before the first image: four example prompts."""
    buttons = "".join(
        f'<button type="button" class="example" data-prompt="{escape(prompt)}"><span aria-hidden="true">{emoji}</span>'
        f"{escape(prompt)}</button>"
        for emoji, prompt in EXAMPLES
    )
    return _frame(
        '<div class="empty-state"><p class="lead">What would you like to see?</p>'
        f'<p class="hint">Type a short prompt, or try one of these.</p><div class="examples">{buttons}</div></div>',
        "empty",
    )


def waiting(position: int) -> str:
    """Returns the panel of a job that waits behind `position` other jobs."""
    jobs = "1 job is" if position == 1 else f"{position} jobs are"
    return _frame(_spinner(f"{jobs} ahead of yours", "Yours starts automatically."), "busy")


def loading(model: str, percent: int) -> str:
    """Returns the panel of a job that waits for its model."""
    bar = _progress_bar("Loading", percent, 100)
    return _frame(_spinner(f"Loading {escape(model)}, {percent}%", "Your picture starts right after.", bar), "busy")


def generating(preview: str, step: int, steps: int, eta: float | None, chart: str, variant: str = "") -> str:
    """Returns the panel of an image that is being generated.

    Args:
        preview: The preview as a data URI.
        step: The current step, counted from 1.
        steps: The number of steps.
        eta: Estimated seconds left, None if unknown.
        chart: `curve_chart` so far.
        variant: Name of the variant of a comparison.
    """
    name = f"{escape(variant)} · " if variant else ""
    left = "" if eta is None else f" · {duration(eta)} left"
    return (
        _frame(
            f'<div class="picture"><img src="{preview}" alt="Preview of the picture"></div>'
            f'{_progress_bar("Steps", step, steps)}<p class="count">{name}step {step} of {steps}{left}</p>',
            "busy",
        )
        + chart
    )


def uploaded(path: str) -> str:
    """Returns the panel of an uploaded image."""
    return _frame(f'<div class="picture"><img src="{image_url(path)}" alt="Your picture"></div>', "uploaded")


def finished(image: ImageInfo, position: str = "") -> str:
    """Returns the panel of a finished image: the image, its facts and score, and its similarity curve.

    `position` says which image of a run it is, such as "2 of 4".
    """
    return image_frame(image) + facts(image, position) + similarity_chart(image)


def image_frame(image: ImageInfo) -> str:
    """Returns a finished image, which is a link to download it, with its prompt below."""
    title, url = escape(image.title), image_url(image.path)
    name = escape(Path(image.path).name)
    return _frame(
        f'<a class="picture" href="{url}" download="{name}" title="Download. The settings are stored in the file.">'
        f'<img src="{url}" alt="{title}" data-final="1"></a>'
        f"<figcaption>{title}</figcaption>",
        "done",
    )


def facts(image: ImageInfo, position: str = "") -> str:
    """Returns the score of an image, its seed, time, steps and size, and the warnings of the pipeline."""
    width, height, steps = (image.settings[name] for name in ("width", "height", "steps"))
    values = [
        ("seed", str(image.seed)),
        ("time", None if image.seconds is None else duration(image.seconds)),
        ("steps", None if steps is None else str(steps)),
        ("size", f"{width} × {height}"),
        ("picture", position or None),
    ]
    row = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in values if value)
    return f'<div class="facts">{_scores(image)}<dl>{row}</dl>{warnings(image.warnings)}</div>'


def _scores(image: ImageInfo) -> str:
    """Returns the similarity of a variation to its source image, and the score of an image that has a prompt."""
    similarity = image.variation_similarity
    line = f'<p class="score">{likeness_line(similarity)}</p>' if similarity is not None else ""
    return line + (score(image.clip) if image.settings["prompt"].strip() else "")


def score(clip: dict[str, Any] | None) -> str:
    """Returns a calibrated CLIP score as a bar and a sentence; the cosine similarity is in the tooltip.

    `clip` is `clipgen.clip.score.Score.to_dict()`, None if the model has no CLIP.
    """
    if clip is None:
        return '<p class="score">This model has no CLIP, so there is no score.</p>'
    detail = escape(f"cosine similarity {clip['similarity']:.3f}, CLIP score {clip['score']:.2f}, {clip['model']}")
    graded = " · self-graded: the same CLIP guided this picture" if clip["self_graded"] else ""
    rank = clip["percentile"]
    if rank is None:
        return f'<p class="score" title="{detail}">Not calibrated: too few captions differ from the prompt.</p>'
    return (
        f'<div class="score" title="{detail}">'
        f'<div class="meter {rating(rank)}"><i style="width:{rank:.1f}%"></i></div>'
        f"<p>Matches the prompt better than <b>{percent(rank)}</b> of {clip['captions']:,} other captions"
        f'<span class="grade">{rating(rank)}</span>{graded}</p></div>'
    )


def similarity_chart(image: ImageInfo) -> str:
    """Returns the similarity curve of a finished image."""
    return curve_chart(image.curve, int(image.settings["steps"] or 1), image.unguided_curve)


def variation_source(file: Any, weight: Any) -> str:
    """Returns which uploaded image is varied, and whether the prompt has an influence.

    Args:
        file: Gradio's FileData dict, None if there is no image.
        weight: The weight of the image, 0 to 1; at 1 the prompt has no influence.
    """
    name = Path(str(file.get("orig_name") or file.get("path"))).name if isinstance(file, dict) else ""
    influence = "the prompt is not used" if weight == 1 else "the prompt is used too"
    return f"<p>Generates variations of <b>{escape(name)}</b>; {influence}.</p>"


def warnings(notes: Iterable[Note]) -> str:
    """Returns warnings as a list, "" if there are none."""
    items = "".join(f"<li>{escape(note.message)}</li>" for note in dict.fromkeys(notes))
    return f'<ul class="warnings">{items}</ul>' if items else ""


def message(text: str, kind: str = "error") -> str:
    """Returns one line of text, "" for an empty one; `kind` is error, done or hint."""
    role = "alert" if kind == "error" else "status"
    return f'<p class="message {kind}" role="{role}">{escape(text)}</p>' if text else ""


def table(rows: Sequence[tuple[str, Any]]) -> str:
    """Returns names and values as a table, "" if there are none."""
    cells = "".join(f"<tr><th>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>" for name, value in rows)
    return f'<table class="settings"><tbody>{cells}</tbody></table>' if cells else ""


def image_url(path: str) -> str:
    """Returns the URL of a file in the image store."""
    return FILE_URL + quote(path)


def data_uri(image: Image) -> str:
    """Returns a preview as a JPEG data URI, which needs no file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def duration(seconds: float) -> str:
    """Returns seconds as text: `4.2 s`, `42 s`, `3 min`."""
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _frame(content: str, state: str) -> str:
    return f'<figure class="frame {state}" data-state="{state}">{content}</figure>'


def _progress_bar(label: str, value: int, maximum: int) -> str:
    return (
        f'<div class="bar" role="progressbar" aria-valuenow="{value}" aria-valuemax="{maximum}" aria-label="{label}">'
        f'<i style="width:{100 * value / maximum:.1f}%"></i></div>'
    )


def _spinner(title: str, hint: str, below: str = "") -> str:
    return (
        '<div class="empty-state"><span class="spinner" aria-hidden="true"></span>'
        f'<p class="lead">{title}</p><p class="hint">{hint}</p>{below}</div>'
    )
