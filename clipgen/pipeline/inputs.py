"""What settings name beside the model, looked at before anything is loaded: pictures to resemble, CLIPs that guide."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from clipgen.errors import ImageFileError, ModelNotFound, SettingsError
from clipgen.settings.checks import printable, split_target
from clipgen.settings.settings import Settings


def check_images(runs: Iterable[Settings]) -> None:
    """Opens each picture once; raises ImageFileError for a broken one to vary, SettingsError for one of `like`."""
    from clipgen.image_file import open_image

    runs = list(runs)
    for source in dict.fromkeys(run.vary for run in runs if run.vary is not None):
        open_image(split_target(source)[0])
    for target in dict.fromkeys(target for run in runs if run.guided for target in run.like):
        try:
            open_image(split_target(target)[0])
        except ImageFileError as error:
            raise SettingsError(f"like: {error}", field="like") from error


def find_source_image(target: str, digest: object, near: Path, known: str | None) -> str:
    """Returns what a record varies, `picture:weight`, with the path of the very file, by its SHA-256.

    Looked for where the history knows it (`known`), beside the picture `near`, here, and among all that was drawn.
    Raises ImageFileError where it is nowhere.
    """
    from clipgen import history
    from clipgen.hashing import sha256_of

    picture, weight = split_target(target)
    name = re.split(r"[/\\]", picture)[-1]
    places = [Path(split_target(known)[0])] if known else []
    drawn = history.paths_of(digest) if isinstance(digest, str) else []
    for path in (*places, near.parent / name, Path(name), *drawn):
        if path.is_file() and sha256_of(path) == digest:
            return f"{path}:{weight:g}"
    raise ImageFileError(
        f"'{printable(near.name)}' varies '{printable(name)}', which is missing. Name it: --vary IMAGE"
    )


def check_clips(settings: Settings, *, offline: bool) -> None:
    """Finds the CLIPs that guide, fetching those of the hub unless `offline`.

    Raises SettingsError where there are too few for the guidance, ModelNotFound.
    """
    if not settings.guided:
        return
    from clipgen.models.find import find_clip

    for name in settings.clip_models:
        try:
            find_clip(name, offline=offline)
        except ModelNotFound as error:
            raise ModelNotFound(str(error), field="clip_models") from error
    second = settings.guard == "two-key"
    if second and not settings.clip_models:
        raise SettingsError("guard two-key needs a second CLIP: name it with --clip-model", field="guard")
    if not own_clip_folder(settings.model).is_dir() and len(settings.clip_models) <= second:
        needs = "two CLIPs" if second else "a CLIP"
        asks = f"guidance '{settings.guidance}'" if settings.budget is None else f"budget {settings.budget:g}x"
        raise SettingsError(
            f"{asks} needs {needs}, and model '{settings.model}' brings none: name "
            f"{'both' if second else 'one'} with --clip-model, such as openai/clip-vit-base-patch32",
            field="clip_models",
        )


def own_clip_folder(model: str) -> Path:
    """Returns where a model's own CLIP lies, if it brings one; the model is on this machine."""
    from clipgen.models import find_model

    return (find_model(model, offline=True).path / "clip").resolve()


def guiding_clips(settings: Settings) -> set[Path]:
    """Returns the folders of all CLIPs that steer, one that only vetoes among them; they are on this machine."""
    from clipgen.models.find import find_clip

    guides = {find_clip(name, offline=True).path.resolve() for name in settings.clip_models}
    return (
        guides
        if len(settings.clip_models) > (settings.guard == "two-key")
        else guides | {own_clip_folder(settings.model)}
    )


def choose_judge(settings: Settings, judge: str | None) -> str | None:
    """Returns the CLIP that is to judge: the one that is named, else the model's `judge` folder, unless that guides."""
    from clipgen.models import find_model

    own = find_model(settings.model, offline=True).path / "judge"
    return str(own) if judge is None and own.is_dir() and own.resolve() not in guiding_clips(settings) else judge


def check_judge(judge: str, settings: Settings, *, offline: bool) -> None:
    """Finds the CLIP that is to judge; raises SettingsError if it guides these settings, ModelNotFound."""
    from clipgen.models.find import find_clip

    if find_clip(judge, offline=offline).path.resolve() in guiding_clips(settings):
        raise SettingsError(f"judge '{judge}' guides these pictures: name another CLIP", field="judge")
