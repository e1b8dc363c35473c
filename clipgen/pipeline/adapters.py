"""The files that change the model for an image: LoRAs, and the embeddings of textual inversion.

LoRAs are named by `lora` and by the tags `<lora:name:weight>` in the prompt; embeddings by `embedding`, or by their
name in the prompts if their file is in a folder `embeddings`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipgen import home
from clipgen.errors import ModelError, SettingsError
from clipgen.models.adapter_file import check_file, digest_of, find_file
from clipgen.settings.checks import split_target
from clipgen.settings.settings import Note, Settings

if TYPE_CHECKING:
    from clipgen.families.lora import Lora
    from clipgen.families.textual_inversion import Embedding
    from clipgen.models import CheckedModel


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


def named_embeddings(settings: Settings) -> list[Path]:
    """Returns the files that `embedding` names; raises ModelNotFound."""
    return [find_file("embedding", name).absolute() for name in settings.embedding]


def folder_embeddings(settings: Settings) -> list[Path]:
    """Returns the files in the folders `embeddings` whose name is a word of the prompt or the negative prompt."""
    prompts = f"{settings.prompt}\n{settings.negative_prompt}"
    return [
        path.absolute()
        for name, path in home.adapter_files("embeddings").items()
        if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", prompts, re.IGNORECASE)
    ]


def loras_of(settings: Settings) -> tuple[Lora, ...]:
    """Returns the LoRAs of an image. Raises as lora_files."""
    from clipgen.families.lora import Lora

    return tuple(Lora(path, weight, digest_of(path)) for path, weight in lora_files(settings).items())


def embeddings_of(
    settings: Settings, widths: tuple[int, ...], model: str
) -> tuple[tuple[Embedding, ...], tuple[Note, ...]]:
    """Returns the embeddings of an image for text encoders of these widths, and notes on those that do not fit.

    A file that `embedding` names must fit; one in a folder is left out, because its name may be meant as a word. Raises
    ModelError and ModelNotFound.
    """
    from clipgen.families.textual_inversion import read_embedding

    named = named_embeddings(settings)
    embeddings, notes = [], []
    for path in dict.fromkeys((*named, *folder_embeddings(settings))):
        try:
            embeddings.append(read_embedding(path, digest_of(path), widths, model))
        except ModelError as error:
            if path in named:
                raise
            notes.append(Note("embedding-not-used", None, f"{error} It is read as a word."))
    return tuple(embeddings), tuple(notes)


def adapter_hashes(loras: Iterable[Lora], embeddings: Iterable[Embedding]) -> dict[str, str]:
    """Returns the inputs of the record: `lora:<file name>` and `embedding:<file name>` -> SHA-256."""
    files = [("lora", each.path, each.sha256) for each in loras]
    files += [("embedding", each.path, each.sha256) for each in embeddings]
    return {f"{field}:{path.name}": sha256 for field, path, sha256 in files}


def check_adapters(runs: Iterable[Settings]) -> None:
    """Finds each file and checks its header once, before a model is loaded; raises as lora_files."""
    runs = list(runs)
    for path in dict.fromkeys(path for run in runs for path in lora_files(run)):
        check_file("lora", path)
    for path in dict.fromkeys(path for run in runs for path in named_embeddings(run)):
        check_file("embedding", path)


def check_fit(settings: Settings, checked: CheckedModel) -> None:
    """Checks the files of settings against a model whose weights are not loaded; raises ModelError."""
    from clipgen.families.lora_file import check_lora
    from clipgen.families.textual_inversion import check_embedding

    networks: dict[str, Any] = {name: network.module for name, network in checked.networks.items()}
    for path in lora_files(settings):
        check_lora(path, checked.layout, networks, checked.source.name)
    if checked.layout.clip_text:
        encoders = [network for name, network in networks.items() if name.startswith("text_encoder")]
        for path in named_embeddings(settings):
            check_embedding(path, [encoder.config.hidden_size for encoder in encoders], checked.source.name)


def check_family(settings: Settings, model: str, family: str, *, takes_lora: bool, layers: int | None) -> None:
    """Raises SettingsError, naming the field, for settings that the family of a model cannot apply.

    `layers` is the number of layers of its CLIP text encoder, None if it reads the prompt with others too.
    """
    if not takes_lora and lora_files(settings):
        raise SettingsError(f"model '{model}' takes no LoRA: its family is {family}", field="lora")
    if layers is None and settings.embedding:
        raise SettingsError(f"model '{model}' takes no embedding: its family is {family}", field="embedding")
    if layers is None and settings.clip_skip:
        raise SettingsError(f"clip_skip must be 0 for model '{model}': its family is {family}", field="clip_skip")
    if layers is not None and settings.clip_skip >= layers:
        raise SettingsError(
            f"clip_skip must be at most {layers - 1} for model '{model}', got '{settings.clip_skip}'", field="clip_skip"
        )
