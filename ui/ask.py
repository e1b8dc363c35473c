"""What CLIP says of a picture: how well words fit, which label fits best, and which part belongs to which word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipgen.errors import ClipgenError, SettingsError
from clipgen.settings.checks import SERVED
from clipgen.settings.settings import Settings, check_field

from . import stage
from .upload import picture_of, read
from .workshop import Answer, Loading, Stopped, Waiting, Workshop

if TYPE_CHECKING:
    from clipgen.clip.classify import Classification
    from clipgen.clip.score import Score, Scorer
    from clipgen.gallery import Explanation, RankedImage
    from clipgen.pipeline.pipeline import Pipeline

MOST_LABELS = 100
MOST_PICTURES = 16  # of a ranking


def scorer_of(pipe: Pipeline) -> Scorer:
    """Returns a model's CLIP; raises SettingsError for one that brings none."""
    if pipe.scorer is None:
        raise SettingsError(f"model '{pipe.origin.model}' brings no CLIP", field="model")
    return pipe.scorer


def score(workshop: Workshop, file: object, text: object) -> Callable[[Pipeline], Score]:
    """Returns the question how well an uploaded picture fits a text; raises ClipgenError for what cannot be asked."""
    from clipgen.image_file import open_image

    words, picture = check_field("prompt", text, SERVED), open_image(workshop.shelf.uploaded(file))

    def question(pipe: Pipeline) -> Score:
        from clipgen.gallery import score

        return score(picture, words, model=scorer_of(pipe))[0]

    return question


def rank(workshop: Workshop, files: object, text: object) -> Callable[[Pipeline], list[RankedImage]]:
    """Returns the question which of some uploaded pictures fit a text best; raises ClipgenError."""
    words = check_field("prompt", text, SERVED)
    if not isinstance(files, list) or not 1 <= len(files) <= MOST_PICTURES:
        raise SettingsError(f"pictures must be a list of 1 to {MOST_PICTURES}", field="pictures")
    paths = [picture_of(workshop.shelf, file) for file in files]

    def question(pipe: Pipeline) -> list[RankedImage]:
        from clipgen.gallery import rank

        return rank(paths, words, model=scorer_of(pipe))

    return question


def caption(workshop: Workshop, file: object) -> Callable[[Pipeline], str]:
    """Returns the question what an uploaded picture shows; raises ClipgenError, from the question too."""
    from clipgen.image_file import open_image

    picture = open_image(workshop.shelf.uploaded(file))

    def question(pipe: Pipeline) -> str:
        from clipgen.models.load_captioner import load_captioner

        return load_captioner(pipe.origin.model, pipe.device, offline=True).caption([picture])[0]

    return question


def classify(workshop: Workshop, file: object, labels: object) -> Callable[[Pipeline], list[Classification]]:
    """Returns the question which of some labels, between commas, an uploaded picture shows; raises ClipgenError."""
    from clipgen.clip.classify import DEFAULT_TEMPLATES, check_labels
    from clipgen.image_file import open_image

    named = [name.strip() for name in check_field("prompt", labels, SERVED).split(",") if name.strip()]
    if len(named) > MOST_LABELS:
        raise SettingsError(f"labels must be at most {MOST_LABELS}, got '{len(named)}'", field="labels")
    check_labels(named, DEFAULT_TEMPLATES)
    picture = open_image(workshop.shelf.uploaded(file))

    def question(pipe: Pipeline) -> list[Classification]:
        from clipgen.gallery import classify

        return classify(picture, named, model=scorer_of(pipe))[0]

    return question


def explain(workshop: Workshop, file: object, text: object) -> Callable[[Pipeline], Explanation]:
    """Returns the question which part of an uploaded picture belongs to which word; raises ClipgenError.

    Without a text it is the prompt inside the picture; one that clipgen's own model here drew is drawn again for it.
    """
    from clipgen.image_file import open_image
    from clipgen.text import plain_text

    path = workshop.shelf.uploaded(file)
    picture = open_image(path)
    if isinstance(text, str) and text.strip():
        words = check_field("prompt", text, SERVED)
    else:
        _, restored = read(workshop.shelf, file)
        if restored.record is not None and restored.settings.model in workshop.house.models:
            return replay(workshop, restored.settings.to_dict())
        words = plain_text(restored.settings.prompt, restored.settings.prompt_syntax)

    def question(pipe: Pipeline) -> Explanation:
        from clipgen.gallery import explain_image

        return explain_image(scorer_of(pipe), picture, words)

    return question


def replay(workshop: Workshop, values: dict[str, Any]) -> Callable[[Pipeline], Explanation]:
    """Returns the question which part belongs to which word of a picture that is drawn again; raises ClipgenError."""
    settings: Settings = workshop.settings(values)

    def question(pipe: Pipeline) -> Explanation:
        from clipgen.gallery import explain

        return explain(pipe, settings)

    return question


def asked(workshop: Workshop, build: Callable[[], Callable[[Pipeline], Any]], visitor: str) -> Iterator[Any]:
    """Yields HTML while a question waits, then the answer itself; errors come as words."""
    try:
        for event in workshop.ask(build(), workshop.model or workshop.house.models[0], visitor):
            match event:
                case Waiting(place):
                    yield stage.waiting(place)
                case Loading(model, percent):
                    yield stage.loading(model, percent)
                case Stopped():
                    yield stage.message("Stopped.", "done")
                case Answer():
                    yield event
    except ClipgenError as error:
        yield stage.message(str(error))


def labels_told(found: list[Classification]) -> str:
    """Returns labels as bars, the likeliest first."""
    rows = "".join(
        f"<tr><th>{escape(guess.label)}</th>"
        f'<td><div class="meter"><i style="width:{100 * guess.probability:.1f}%"></i></div></td>'
        f"<td>{100 * guess.probability:.1f} %</td></tr>"
        for guess in found[:10]
    )
    note = "The percentages add up to 100 over the labels you named: they choose among those, and know no others."
    return f'<table class="labels"><tbody>{rows}</tbody></table><p class="note">{note}</p>'


def ranks_told(found: list[RankedImage]) -> str:
    """Returns ranked pictures with their scores, the best first."""
    rows = "".join(
        f'<li><img src="{stage.url(str(each.image))}" alt="Picture {each.index + 1}">'
        f"<div><b>{escape(Path(str(each.image)).name)}</b>{stage.score(each.score.to_dict())}</div></li>"
        for each in found
    )
    return f'<ol class="ranked">{rows}</ol>'


def caption_told(caption: str) -> str:
    """Returns what a picture shows, as a model says it."""
    return f'<p class="caption">{escape(caption)}</p><p class="note">In the model\'s own words: it may be wrong.</p>'
