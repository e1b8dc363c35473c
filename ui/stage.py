"""What the page shows of a job: HTML made of words and pictures, every text in it escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from clipgen.report.score_text import likeness_line, percent, word
from clipgen.settings.settings import Note, Settings

from .curve import Points, curve

if TYPE_CHECKING:
    from PIL.Image import Image

EXAMPLES = (
    ("🦊", "a fox in snow"),
    ("🚗", "a red car in the city"),
    ("🐈", "a cat on a beach"),
    ("🦉", "an owl at night"),
)
FILES = "/gradio_api/file="


@dataclass(frozen=True)
class Card:
    """One finished picture as the page knows it: where its copy lies, and everything that is said of it."""

    path: str
    settings: dict[str, Any]
    seed: int
    seconds: float | None
    clip: dict[str, Any] | None
    notes: tuple[Note, ...] = ()
    curve: Points = ()
    twin: Points = ()
    likeness: float | None = None

    @property
    def title(self) -> str:
        """What the picture is called: its prompt, or what it is a variation of."""
        return Settings.from_dict(self.settings).title


def empty() -> str:
    """Returns the stage before the first picture: four prompts to try."""
    cards = "".join(
        f'<button type="button" class="example" data-prompt="{escape(prompt)}"><span aria-hidden="true">{mark}</span>'
        f"{escape(prompt)}</button>"
        for mark, prompt in EXAMPLES
    )
    return _frame(
        f'<div class="blank"><p class="lead">What shall it draw?</p><p class="hint">Type a few plain words, or try one '
        f'of these.</p><div class="examples">{cards}</div></div>',
        "empty",
    )


def waiting(place: int) -> str:
    """Returns the stage of a job in the line."""
    jobs = "1 job is" if place == 1 else f"{place} jobs are"
    return _frame(_quiet(f"{jobs} before yours", "It starts by itself."), "busy")


def loading(model: str, percent: int) -> str:
    """Returns the stage while a model is being loaded."""
    bar = (
        f'<div class="bar" role="progressbar" aria-valuenow="{percent}" aria-valuemax="100" aria-label="Loading">'
        f'<i style="width:{percent}%"></i></div>'
    )
    return _frame(_quiet(f"Loading {escape(model)}, {percent} %", "Once. Yours comes right after.", bar), "busy")


def drawing(preview: str, step: int, steps: int, eta: float | None, line: str, arm: str = "") -> str:
    """Returns the stage of an unfinished picture: `preview` is a data URI, `step` counts from 1."""
    left = "" if eta is None else f" · {duration(eta)} left"
    what = f"{escape(arm)} · " if arm else ""
    part = 100 * step / steps
    return _frame(
        f'<div class="picture"><img src="{preview}" alt="The picture so far"></div>'
        f'<div class="bar" role="progressbar" aria-valuenow="{step}" aria-valuemax="{steps}" aria-label="Steps">'
        f'<i style="width:{part:.1f}%"></i></div>'
        f'<p class="count">{what}step {step} of {steps}{left}</p>',
        "busy",
        below=_curve_block(line),
    )


def looked_at(path: str) -> str:
    """Returns a picture that somebody brought, in its frame."""
    return _frame(f'<div class="picture"><img src="{url(path)}" alt="Your picture"></div>', "brought")


def varying(file: Any, weight: Any) -> str:
    """Returns which uploaded picture stands beside the words, and whether they still count."""
    name = Path(str(file.get("orig_name") or file.get("path"))).name if isinstance(file, dict) else ""
    count = "your words do not count" if weight == 1 else "your words count too"
    return f"<p>Draws variations of <b>{escape(name)}</b>: {count}.</p>"


def finished(card: Card, position: str = "") -> str:
    """Returns the stage of a finished picture with everything that is known of it."""
    return finished_only(card) + facts(card, position) + curve_block(card)


def finished_only(card: Card) -> str:
    """Returns a finished picture in its frame, the prompt below it."""
    prompt = card.title
    name = Path(card.path).name
    link = f'href="{url(card.path)}" download="{escape(name)}" title="Download: the settings are inside"'
    picture = (
        f'<a class="picture" {link}>'
        f'<img src="{url(card.path)}" alt="{escape(prompt)}" data-final="1"></a>'
        f"<figcaption>{escape(prompt)}</figcaption>"
    )
    return _frame(picture, "done")


def facts(card: Card, position: str = "") -> str:
    """Returns seed, seconds, size and the calibrated score of a picture, and what is to be warned of."""
    width, height = card.settings["width"], card.settings["height"]
    chips = [
        ("seed", str(card.seed)),
        ("time", "None" if card.seconds is None else duration(card.seconds)),
        ("steps", str(card.settings["steps"])),
        ("size", f"{width} × {height}"),
        *([("picture", position)] if position else []),
    ]
    row = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in chips if value != "None")
    return f'<div class="facts">{_fit(card)}<dl>{row}</dl>{notes(card.notes)}</div>'


def _fit(card: Card) -> str:
    """Returns how well a picture fits its words, and the picture that it varies."""
    like = f'<p class="score">{likeness_line(card.likeness)}</p>' if card.likeness is not None else ""
    return like + (score(card.clip) if card.settings["prompt"].strip() else "")


def score(clip: dict[str, Any] | None) -> str:
    """Returns a calibrated score: a meter, and a sentence; never a bare cosine."""
    if clip is None:
        return '<p class="score">This model brings no CLIP, so there is no score.</p>'
    detail = f"cosine similarity {clip['similarity']:.3f}, CLIP score {clip['score']:.2f}, {clip['model']}"
    graded = " · self-graded: the CLIP that steered also counts" if clip["self_graded"] else ""
    if clip["percentile"] is None:
        return f'<p class="score" title="{escape(detail)}">Not calibrated: too few captions differ from the prompt.</p>'
    rank = clip["percentile"]
    return (
        f'<div class="score" title="{escape(detail)}">'
        f'<div class="meter {word(rank)}"><i style="width:{rank:.1f}%"></i></div>'
        f"<p>Matches its words better than <b>{percent(rank)}</b> of {clip['captions']:,} other captions"
        f'<span class="word">{word(rank)}</span>{graded}</p></div>'
    )


def notes(found: Iterable[Note]) -> str:
    """Returns warnings as a list, "" if there are none."""
    lines = "".join(f"<li>{escape(note.message)}</li>" for note in dict.fromkeys(found))
    return f'<ul class="notes">{lines}</ul>' if lines else ""


def message(text: str, kind: str = "error") -> str:
    """Returns one line for people; `kind`: error, done, hint."""
    return (
        f'<p class="message {kind}" role="{"alert" if kind == "error" else "status"}">{escape(text)}</p>'
        if text
        else ""
    )


def table(rows: Sequence[tuple[str, Any]]) -> str:
    """Returns names and values as a table."""
    cells = "".join(f"<tr><th>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>" for name, value in rows)
    return f'<table class="settings"><tbody>{cells}</tbody></table>' if cells else ""


def url(path: str) -> str:
    """Returns the address of a picture on the shelf."""
    return FILES + quote(path)


def data_uri(image: Image) -> str:
    """Returns a preview as a data URI, which needs no file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _frame(inside: str, state: str, below: str = "") -> str:
    return f'<figure class="frame {state}" data-state="{state}">{inside}</figure>{below}'


def _quiet(lead: str, hint: str, below: str = "") -> str:
    spin = '<span class="spin" aria-hidden="true"></span>'
    return f'<div class="blank">{spin}<p class="lead">{lead}</p><p class="hint">{hint}</p>{below}</div>'


def curve_block(card: Card) -> str:
    """Returns the fit of a finished picture to its words, step by step."""
    return _curve_block(curve(card.curve, int(card.settings["steps"] or 1), card.twin))


def _curve_block(line: str) -> str:
    if not line:
        return ""
    return f'<div class="fit">{line}</div>'


def duration(seconds: float) -> str:
    """Returns seconds as people say them."""
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
