"""Checks the files and CLIP models that settings name, before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clipgen.errors import ImageFileError, ModelNotFound, SettingsError
from clipgen.settings.checks import names_path, printable, split_target
from clipgen.settings.settings import ADAPTER_FIELDS, Settings


def check_images(runs: Iterable[Settings]) -> None:
    """Opens each input image once; raises ImageFileError for an unreadable one of `vary`, SettingsError for `like`."""
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
    """Returns the setting `vary` of a record, `file:weight`, with the path of the file that has this SHA-256.

    The file is searched at the path that the history recorded (`known`), in the folder of the image file `near`, in the
    working directory, and among the images of the history. Raises ImageFileError if it is not found.
    """
    from clipgen import history
    from clipgen.hashing import sha256_of

    file, weight = split_target(target)
    name = re.split(r"[/\\]", file)[-1]
    recorded = [Path(split_target(known)[0])] if known else []
    generated = history.paths_of(digest) if isinstance(digest, str) else []
    for path in (*recorded, near.parent / name, Path(name), *generated):
        if path.is_file() and sha256_of(path) == digest:
            return f"{path}:{weight:g}"
    raise ImageFileError(
        f"'{printable(near.name)}' varies '{printable(name)}', which is missing. Name it: --vary IMAGE"
    )


def find_adapters(
    values: Mapping[str, Any], digests: Mapping[str, Any], near: Path, known: Settings | None
) -> dict[str, list[str]]:
    """Returns the adapter fields of a record with the paths of the files that have the recorded SHA-256.

    A file is searched at the path that the history recorded (`known`), in the folder of the image file `near`, in the
    working directory and in the user's folders. A name in these folders stays a name if its file is the same. Raises
    ImageFileError if a file is not found.
    """
    return {
        name: [
            _find_adapter(name, target, digests, near, () if known is None else getattr(known, name))
            for target in values[name]
        ]
        for name in ADAPTER_FIELDS
    }


def _find_adapter(field: str, target: str, digests: Mapping[str, Any], near: Path, known: Sequence[str]) -> str:
    from clipgen.hashing import sha256_of
    from clipgen.home import adapter_files

    adapter, _ = split_target(target)
    weight = target.removeprefix(adapter)  # an embedding has none
    own_files = adapter_files(f"{field}s")
    is_path = names_path(adapter)
    name = re.split(r"[/\\]", adapter)[-1] if is_path else f"{adapter}.safetensors"
    digest = digests.get(f"{field}:{name}")
    if not is_path and adapter in own_files and sha256_of(own_files[adapter]) == digest:
        return target
    recorded = [path for path in (Path(split_target(each)[0]) for each in known) if path.name == name]
    others = [path for path in own_files.values() if path.name == name]
    for path in (*recorded, near.parent / name, Path(name), *others):
        if path.is_file() and sha256_of(path) == digest:
            return f"{path}{weight}"
    raise ImageFileError(
        f"'{printable(near.name)}' uses the {field} file '{printable(name)}', which is missing or has changed. "
        f"Name it: --{field} FILE"
    )


def changed_loras(prompt: str, syntax: str, digests: Mapping[str, Any]) -> list[str]:
    """Returns the names of the LoRAs in a prompt whose files are not those of the recorded SHA-256."""
    from clipgen.hashing import sha256_of
    from clipgen.home import adapter_files
    from clipgen.text import lora_tags

    files = adapter_files("loras")
    names = [split_target(tag)[0] for tag in lora_tags(prompt, syntax)]
    digest_of = {name: sha256_of(files[name]) for name in names if name in files}
    return [name for name in names if name in files and digest_of[name] != digests.get(f"lora:{files[name].name}")]


def require_vae(vae: str | None, *, offline: bool) -> None:
    """Finds the VAE that the settings name, and downloads it unless `offline`; raises SettingsError, ModelNotFound."""
    from clipgen.models.find import find_vae

    if vae is not None:
        find_vae(vae, offline=offline)


def with_default_clip(settings: Settings) -> Settings:
    """Returns the settings of a model without a CLIP; if no named CLIP is left to guide, a default one is named.

    It is the first of `models.find.DEFAULT_CLIPS` that is on this machine; without one, the settings are unchanged.
    """
    from clipgen.models.find import default_clip

    if not settings.guided or len(settings.clip_models) > (settings.guard == "two-key"):
        return settings
    name = default_clip()
    return settings if name is None else settings.replace(clip_models=(name, *settings.clip_models))


def check_scorer(settings: Settings, feature: str) -> None:
    """Raises SettingsError if no CLIP on this machine can score the images of the settings.

    `feature` is the option that needs the scores, such as min_score.
    """
    from clipgen.models.find import default_clip

    if settings.clip_models or own_clip_folder(settings.model).is_dir() or default_clip() is not None:
        return
    raise SettingsError(
        f"{feature} needs a CLIP that scores the pictures, and model '{settings.model}' has none: name one with "
        "--clip-model, such as openai/clip-vit-base-patch32",
        field=feature,
    )


def check_clips(settings: Settings, *, offline: bool) -> None:
    """Finds the CLIP models that guide or score, and downloads those of the hub unless `offline`.

    Raises SettingsError if the guidance needs more of them, and ModelNotFound.
    """
    from clipgen.models.find import find_clip

    for name in settings.clip_models:
        try:
            find_clip(name, offline=offline)
        except ModelNotFound as error:
            raise ModelNotFound(str(error), field="clip_models") from error
    if not settings.guided:
        return
    needs_second = settings.guard == "two-key"
    if needs_second and not settings.clip_models:
        raise SettingsError("guard two-key needs a second CLIP: name it with --clip-model", field="guard")
    has_own = own_clip_folder(settings.model).is_dir()
    if not has_own and len(with_default_clip(settings).clip_models) <= needs_second:
        needs = "two CLIPs" if needs_second else "a CLIP"
        feature = f"guidance '{settings.guidance}'" if settings.budget is None else f"budget {settings.budget:g}x"
        raise SettingsError(
            f"{feature} needs {needs}, and model '{settings.model}' has none: name "
            f"{'both' if needs_second else 'one'} with --clip-model, such as openai/clip-vit-base-patch32",
            field="clip_models",
        )


def own_clip_folder(model: str) -> Path:
    """Returns the folder of the own CLIP of a model on this machine; it may not exist."""
    from clipgen.models import find_model

    return (find_model(model).path / "clip").resolve()


def guiding_clips(settings: Settings) -> set[Path]:
    """Returns the folders of all CLIP models that guide, including one that only vetoes; they are on this machine."""
    from clipgen.models.find import find_clip

    own_folder = own_clip_folder(settings.model)
    settings = settings if own_folder.is_dir() else with_default_clip(settings)
    folders = {find_clip(name, offline=True).path.resolve() for name in settings.clip_models}
    own_guides = len(settings.clip_models) <= (settings.guard == "two-key")
    return folders | {own_folder} if own_guides else folders


def choose_judge(settings: Settings, judge: str | None) -> str | None:
    """Returns the CLIP that judges: `judge` if it is given, else the model's `judge` folder unless that one guides."""
    from clipgen.models import find_model

    own = find_model(settings.model).path / "judge"
    return str(own) if judge is None and own.is_dir() and own.resolve() not in guiding_clips(settings) else judge


def check_judge(judge: str, settings: Settings, *, offline: bool) -> None:
    """Finds the CLIP that judges; raises SettingsError if it guides these settings, and ModelNotFound."""
    from clipgen.models.find import find_clip

    if find_clip(judge, offline=offline).path.resolve() in guiding_clips(settings):
        raise SettingsError(f"judge '{judge}' guides these pictures: name another CLIP", field="judge")
