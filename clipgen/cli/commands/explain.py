"""`clipgen explain`: shows which part of a picture belongs to which word of its prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipgen.cli import complete
from clipgen.cli.execute import require_model
from clipgen.cli.image_walk import PICTURES, STORYBOOK, ClipChoice, Device, Json, Offline, Verbose
from clipgen.cli.output import Report
from clipgen.cli.resolve import from_file
from clipgen.errors import ImageFileError, SettingsError
from clipgen.settings.settings import DEFAULTS, Note, Settings, check_field

if TYPE_CHECKING:
    from PIL.Image import Image

    from clipgen.gallery import Explanation

MAX_DIFFERENCE = 3.0  # of 255: a replay with a larger mean difference is another picture
NO_REPLAY = Note(
    "no-replay", None, "Not drawn again: patch similarity shows what CLIP sees, not what drew the picture."
)


def explain(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="A PNG, JPEG or WebP.", rich_help_panel=PICTURES)],
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", "-p", metavar="TEXT", help="The text, for a picture without a prompt in the file.",
            rich_help_panel=PICTURES, show_default=False,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="A PNG file or a folder.",
            rich_help_panel=PICTURES, show_default="the picture's folder",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="NAME", help="The model that drew it, or a CLIP for other pictures.",
            rich_help_panel=PICTURES, autocompletion=complete.models, show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Show which part of a picture belongs to which word.

    Draws the picture again from the settings in the file and records the cross-attention of each word. The number
    of a word is its contribution to the CLIP similarity; below 0 the picture lacks it.

    clipgen explain fox.png                        writes the maps to fox-words.png
    clipgen explain photo.jpg -p "a cat, a sofa"   any picture, with CLIP only
    """
    with Report(json=json, verbose=verbose, events=False) as report:
        from clipgen.image_file import open_image

        picture = open_image(image)
        values = {} if prompt else _values_in_file(Path(image), report)
        if "seed" in values:
            explanation = _by_replay(picture, values | ({"model": model} if model else {}), device, report)
        else:
            clip = ClipChoice(model or STORYBOOK, device, offline)
            explanation = _by_clip(picture, prompt or values.get("prompt"), clip, report)
        path = _write(explanation, Path(image), output)
        for word, drop in zip(explanation.words, explanation.drops or (), strict=False):
            report.say(f"{drop:+.3f}  {word}")
        report.data = {"path": str(path), **explanation.to_dict()}
        report.result(path)


def _values_in_file(path: Path, report: Report) -> dict[str, Any]:
    """Returns the settings in a file of clipgen, only the prompt in a file of another app, {} if there are none."""
    from clipgen.text import plain_text

    try:
        layer, _ = from_file(path, report)
    except ImageFileError:
        return {}
    if layer.replay:
        return dict(layer.values)
    values = {**DEFAULTS, **layer.values}
    return {"prompt": plain_text(values["prompt"], values["prompt_syntax"], values["long_prompt"])}


def _by_replay(picture: Image, values: dict[str, Any], device: str, report: Report) -> Explanation:
    """Draws a picture again from its settings; its model is never downloaded."""
    settings = Settings.from_dict(values)
    require_model(settings.model, report, offline=True, replayed=True)
    from clipgen.cli.compare_files import mean_difference
    from clipgen.gallery import explain
    from clipgen.pipeline.pipeline import Pipeline

    explanation = explain(Pipeline.from_pretrained(settings.model, device, offline=True, settings=[settings]), settings)
    distance = mean_difference(picture, explanation.image)
    if distance is None or distance > MAX_DIFFERENCE:
        report.warn(Note("replay-differs", None, "The replay differs from the picture; the maps belong to the replay."))
    return explanation


def _by_clip(picture: Image, prompt: str | None, clip: ClipChoice, report: Report) -> Explanation:
    from clipgen.gallery import explain_image

    if prompt is None:
        raise SettingsError("The file has no prompt: give one with --prompt", field="prompt")
    check_field("prompt", prompt)
    scorer = clip.load()
    report.note(NO_REPLAY)
    return explain_image(picture, prompt, model=scorer)


def _write(explanation: Explanation, picture: Path, output: str | None) -> Path:
    """Writes the sheet of maps under a free name and returns its path; raises OutputError."""
    import io

    from clipgen.gallery.explain_sheet import render_sheet
    from clipgen.image_file import save_bytes

    target = Path(output).expanduser() if output else picture.parent
    is_file = target.suffix.lower() == ".png"
    buffer = io.BytesIO()
    render_sheet(explanation).save(buffer, "PNG")
    folder, stem = (target.parent, target.stem) if is_file else (target, f"{picture.stem}-words")
    return save_bytes(buffer.getvalue(), folder, stem, ".png")
