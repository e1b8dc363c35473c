"""`clipgen explain`: where a picture owes what to which word of its prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipgen.cli import complete
from clipgen.cli.execute import configure_hub_progress, require_model
from clipgen.cli.image_walk import PICTURES, STORYBOOK, Clip, Device, Json, Offline, Verbose
from clipgen.cli.output import Report
from clipgen.cli.resolve import from_file
from clipgen.errors import ImageFileError, SettingsError
from clipgen.settings.settings import Note, Settings, check_field

if TYPE_CHECKING:
    from PIL.Image import Image

    from clipgen.gallery import Explanation

SAME = 3.0  # levels of 255: a replay that is further away on the mean is another picture
FOREIGN = Note("no-replay", None, "No replay: patch similarity says what looks like a word to CLIP, not what drew it.")


def explain(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="A PNG, JPEG or WebP.", rich_help_panel=PICTURES)],
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt", "-p", metavar="TEXT", help="The words, for a picture that carries no prompt.",
            rich_help_panel=PICTURES, show_default=False,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="A PNG file or a folder; beside the picture.",
            rich_help_panel=PICTURES, show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="NAME", help="What drew it; for other pictures the CLIP that looks.",
            rich_help_panel=PICTURES, autocompletion=complete.models, show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Show which part of a picture belongs to which word.

    Draws the picture again from the settings inside, and writes down where the denoiser looks for each word. The
    number beside a word is what it adds to CLIP's similarity; below 0 the picture lacks it.

    clipgen explain fox.png                        maps into fox-words.png
    clipgen explain photo.jpg -p "a cat, a sofa"   any picture, by CLIP alone
    """
    with Report(json=json, verbose=verbose, events=False) as report:
        from clipgen.image_file import open_image

        picture = open_image(image)
        known = {} if prompt else _known(Path(image), report)
        configure_hub_progress(report)
        if "seed" in known:
            found = _by_replay(picture, known | ({"model": model} if model else {}), device, report)
        else:
            clip = Clip(model or STORYBOOK, device, offline)
            found = _by_clip(picture, prompt or known.get("prompt"), clip, report)
        path = _write(found, Path(image), output)
        for word, drop in zip(found.words, found.drops or (), strict=False):
            report.say(f"{drop:+.3f}  {word}")
        report.data = {"path": str(path), **found.to_dict()}
        report.result(path)


def _known(path: Path, report: Report) -> dict[str, Any]:
    """Returns the settings of a picture that clipgen drew, of another app's only its prompt, {} for others."""
    from clipgen.text import plain_text

    try:
        layer, _ = from_file(path, report)
    except ImageFileError:
        return {}
    if layer.replay:
        return dict(layer.values)
    return {"prompt": plain_text(layer.values["prompt"], layer.values.get("prompt_syntax", "a1111"))}


def _by_replay(picture: Image, values: dict[str, Any], device: str, report: Report) -> Explanation:
    """Draws a picture again from its settings; its model is never fetched."""
    settings = Settings.from_dict(values)
    require_model(settings.model, offline=True, replayed=True)
    from clipgen.cli.compare_files import mean_difference
    from clipgen.gallery import explain
    from clipgen.pipeline.pipeline import Pipeline

    found = explain(Pipeline.from_pretrained(settings.model, device, offline=True, settings=[settings]), settings)
    apart = mean_difference(picture, found.image)
    if apart is None or apart > SAME:
        report.warn(Note("replay-differs", None, "The replay gives another picture: the maps are of that one."))
    return found


def _by_clip(picture: Image, prompt: str | None, clip: Clip, report: Report) -> Explanation:
    from clipgen.gallery import explain_image

    if prompt is None:
        raise SettingsError("The picture carries no prompt: name its words with --prompt", field="prompt")
    check_field("prompt", prompt)
    scorer = clip.load(report)
    report.note(FOREIGN)
    return explain_image(scorer, picture, prompt)


def _write(found: Explanation, picture: Path, output: str | None) -> Path:
    """Writes the sheet under a free name and returns where; raises OutputError."""
    import io

    from clipgen.gallery.explain_sheet import sheet
    from clipgen.image_file import save_bytes

    place = Path(output).expanduser() if output else picture.parent
    named = place.suffix.lower() == ".png"
    buffer = io.BytesIO()
    sheet(found).save(buffer, "PNG")
    folder, stem = (place.parent, place.stem) if named else (place, f"{picture.stem}-words")
    return save_bytes(buffer.getvalue(), folder, stem, ".png")
