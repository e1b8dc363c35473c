"""What settings name beside the model, looked at before anything is loaded: pictures to resemble, CLIPs that guide."""

from __future__ import annotations

from collections.abc import Iterable

from clipgen.errors import ImageFileError, ModelNotFound, SettingsError
from clipgen.settings import Settings, split_target


def check_pictures(runs: Iterable[Settings]) -> None:
    """Opens each picture of `like` once; raises SettingsError for one that cannot be."""
    from clipgen.image_file import open_picture

    for target in dict.fromkeys(target for run in runs if run.guidance != "off" for target in run.like):
        try:
            open_picture(split_target(target)[0])
        except ImageFileError as error:
            raise SettingsError(f"like: {error}", field="like") from error


def check_clips(settings: Settings, *, offline: bool) -> None:
    """Finds the CLIPs that guide, fetching those of the hub unless `offline`.

    Raises SettingsError where there are too few for the guidance, ModelNotFound.
    """
    if settings.guidance == "off":
        return
    from clipgen.models import find_model
    from clipgen.models.find import find_clip

    for name in settings.clip_models:
        try:
            find_clip(name, offline=offline)
        except ModelNotFound as error:
            raise ModelNotFound(str(error), field="clip_models") from error
    second = settings.guard == "two-key"
    if second and not settings.clip_models:
        raise SettingsError("guard two-key needs a second CLIP: name it with --clip-model", field="guard")
    has_own = (find_model(settings.model, offline=True).path / "clip").is_dir()
    if not has_own and len(settings.clip_models) <= second:
        needs = "two CLIPs" if second else "a CLIP"
        raise SettingsError(
            f"guidance '{settings.guidance}' needs {needs}, and model '{settings.model}' brings none: name "
            f"{'both' if second else 'one'} with --clip-model, such as openai/clip-vit-base-patch32",
            field="clip_models",
        )


def check_judge(judge: str, settings: Settings, *, offline: bool) -> None:
    """Finds the CLIP that is to judge; raises SettingsError if it guides these settings, ModelNotFound."""
    from clipgen.models import find_model
    from clipgen.models.find import find_clip

    own = () if len(settings.clip_models) > (settings.guard == "two-key") else (settings.model,)
    found = find_clip(judge, offline=offline)
    for name in (*settings.clip_models, *own):
        place = find_model(name, offline=True).path / "clip" if name in own else find_clip(name, offline=True).path
        if place.resolve() == found.path.resolve():
            raise SettingsError(f"judge '{judge}' guides these pictures: name another CLIP", field="judge")
