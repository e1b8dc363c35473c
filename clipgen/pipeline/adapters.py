"""The LoRA files of an image: those that `lora` names, and those of the tags `<lora:name:weight>` in its prompt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from clipgen.errors import SettingsError
from clipgen.models.adapter_file import check_file, digest_of, find_file
from clipgen.settings.checks import split_target
from clipgen.settings.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from clipgen.families.lora import Lora
    from clipgen.models import CheckedModel, Layout


def lora_files(settings: Settings) -> dict[Path, float]:
    """Returns the weight of each LoRA file; the weights of a file that is named twice add up, and 0 is left out.

    Raises PromptError, ModelNotFound and ModelError.
    """
    from clipgen.text import lora_tags

    weights: dict[Path, float] = {}
    for target in (*settings.lora, *lora_tags(settings.prompt, settings.prompt_syntax)):
        name, weight = split_target(target)
        path = find_file("lora", name).absolute()
        weights[path] = round(weights.get(path, 0.0) + weight, 6)
    return {path: weight for path, weight in weights.items() if weight}


def loras_of(settings: Settings) -> tuple[Lora, ...]:
    """Returns the LoRAs of an image. Raises as lora_files."""
    from clipgen.families.lora import Lora

    return tuple(Lora(path, weight, digest_of(path)) for path, weight in lora_files(settings).items())


def lora_hashes(loras: Iterable[Lora]) -> dict[str, str]:
    """Returns the inputs of the record: `lora:<file name>` -> SHA-256."""
    return {f"lora:{lora.path.name}": lora.sha256 for lora in loras}


def check_loras(settings: Settings, checked: CheckedModel) -> None:
    """Checks the LoRAs of settings against a model whose weights are not loaded; raises ModelError."""
    from clipgen.families.lora import check_lora

    networks = {name: network.module for name, network in checked.networks.items()}
    for path in lora_files(settings):
        check_lora(path, checked.layout, networks, checked.source.name)


def check_adapters(runs: Iterable[Settings]) -> None:
    """Finds each LoRA file and checks its header once, before a model is loaded; raises as lora_files."""
    for path in dict.fromkeys(path for run in runs for path in lora_files(run)):
        check_file("lora", path)


def check_family(settings: Settings, model: str, layout: Layout) -> None:
    """Raises SettingsError, naming the field, for settings that the family of a model cannot apply."""
    if layout.lora_loader is None and lora_files(settings):
        raise SettingsError(f"model '{model}' takes no LoRA: its family is {layout.family}", field="lora")
