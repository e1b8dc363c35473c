"""Checks a model folder before anything is loaded: index, configs, headers, and that the networks fit together."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from clipgen.errors import ModelError, SettingsError
from clipgen.hashing import sha256_of
from clipgen.models.files import SCHEDULER_CONFIG, FolderFiles, ModelFiles
from clipgen.models.header import MAX_TOKENIZER, read_json
from clipgen.models.hub_files import has_vocabulary
from clipgen.models.ids import ModelFolder
from clipgen.models.layout import CheckedModel, ClassRef, Layout, SizeLimits, TokenizerFiles, encoder_of
from clipgen.models.network import make_network
from clipgen.models.single_file import SingleFile
from clipgen.settings.checks import printable
from clipgen.settings.settings import MODEL_FIELDS, check_field
from clipgen.world.vocabulary import VOCABULARIES, Vocabulary

MAX_TIMESTEPS = 10_000
MAX_TOKENS = 2**18  # of a tokenizer; the families themselves read fewer
PARTS = {  # pipelines that are a part of a model that clipgen loads
    "KandinskyV22Pipeline": "a decoder without its prior. Works: a folder that diffusers' KandinskyV22CombinedPipeline "
    "saves, which holds both",
    "KandinskyV22PriorPipeline": "a prior without its decoder. Works: a folder that diffusers' "
    "KandinskyV22CombinedPipeline saves, which holds both",
}
MAX_SUMS = 2**20  # bytes


def preflight(source: ModelFolder, layouts: Mapping[str, Layout]) -> CheckedModel:
    """Checks a model folder against the layout of its pipeline class; `layouts` maps pipeline classes to layouts.

    The networks are built on the meta device, which uses no memory. Raises ModelError.
    """
    model_files: ModelFiles = FolderFiles(source.path)
    if source.weights is not None:
        model_files = SingleFile(source.weights, source.path)
    index = model_files.index()
    layout, class_refs = check_index(index, layouts, model_files.has_network)
    scheduler = _scheduler_config(model_files.scheduler(), index["scheduler"][1])
    check_scheduler(scheduler, layout)
    tokenizers = {name: model_files.tokenizer(name) for name in layout.tokenizers if encoder_of(name) in class_refs}
    tokenizer_configs = {name: _tokenizer_config(name, each) for name, each in tokenizers.items()}
    defaults = _defaults(source.path / "clipgen.json")
    files = {name: model_files.network(name) for name in class_refs}
    for name, each in tokenizers.items():
        _check_vocabulary(name, each, files[encoder_of(name)].config)
    networks = {
        name: make_network(name, class_ref, files[name], layout.networks[name])
        for name, class_ref in class_refs.items()
    }
    modules = {name: network.module for name, network in networks.items()}
    layout.check(modules, tokenizer_configs)
    _check_clip(modules)
    size_limits = layout.size_limits(modules)
    _check_default_size(defaults, size_limits, source.name)
    config_components = {
        name: model_files.component_config(name, component.file) for name, component in layout.config_components.items()
    }
    return CheckedModel(
        source,
        layout,
        networks,
        tokenizers,
        scheduler,
        index,
        defaults,
        size_limits,
        config_components,
        read_vocabulary(source.path),
    )


def _check_clip(networks: Mapping[str, Any]) -> None:
    """Raises ModelError for a scoring CLIP with another vocabulary than the text encoder, whose tokenizer it shares."""
    if "clip" in networks and "text_encoder" in networks:
        own, shared = networks["clip"].config.text_config.vocab_size, networks["text_encoder"].config.vocab_size
        if own != shared:
            raise ModelError(
                f"clip/config.json: vocab_size is {own}, that of text_encoder {shared}; both share one tokenizer, so "
                "they must be equal. Remove the folder clip to load the model without scores."
            )


def check_scheduler(config: Mapping[str, Any], layout: Layout) -> None:
    """Raises ModelError unless the scheduler has a prediction type that the family's denoiser supports."""
    from clipgen.sampling.prediction import read_prediction_type

    prediction = read_prediction_type(config)
    if prediction not in layout.predictions:
        raise ModelError(
            f"{config['_class_name']} is made for {prediction}; models of the family {layout.family} "
            f"predict {' or '.join(layout.predictions)}."
        )


def verify(source: ModelFolder) -> int:
    """Compares every file with the model's SHA256SUMS and returns the number of files; raises ModelError.

    No other check finds a flipped bit in the weights that leaves the number finite.
    """
    sums = source.path / "SHA256SUMS"
    if not sums.is_file() or sums.stat().st_size > MAX_SUMS:
        raise ModelError(f"Model '{source.name}' has no SHA256SUMS file to verify it with.")
    lines = [line.partition(" ") for line in sums.read_text("utf-8").splitlines() if line.strip()]
    for digest, _, name in lines:
        path = source.path / name.strip().lstrip("*")
        if not path.is_file() or not hmac.compare_digest(sha256_of(path), digest):
            raise ModelError(f"{path.name} of model '{source.name}' does not match its SHA256SUMS; download it again.")
    return len(lines)


def check_index(
    index: dict[str, Any], layouts: Mapping[str, Layout], has_network: Callable[[str], bool]
) -> tuple[Layout, dict[str, ClassRef]]:
    """Returns the layout of a model_index.json, and the class of each network.

    `has_network` tells whether there are files of a network that the index does not name. Raises ModelError if the
    pipeline class or that of a component is not supported, and for missing components.
    """
    name = str(index.get("_class_name"))
    if name in PARTS:
        raise ModelError(f"Pipeline class '{name}' is {PARTS[name]}.", field="model")
    if name not in layouts:
        raise ModelError(f"Pipeline class '{name[:60]}' is not supported. Works: {', '.join(layouts)}.", field="model")
    layout = layouts[name]
    class_refs = dict(_class_refs(index, layout, has_network))
    _check_components(index, layout, class_refs.keys())
    return layout, class_refs


def _check_components(index: dict[str, Any], layout: Layout, networks: Collection[str]) -> None:
    """Raises ModelError for components of unknown classes and for missing components."""
    schedulers = {"scheduler": tuple(("diffusers", name) for name in layout.schedulers)}
    classes = {name: (*spec.classes, *spec.saved_as) for name, spec in layout.networks.items()}
    config_components = {name: component.classes for name, component in layout.config_components.items()}
    table = {**classes, **layout.tokenizers, **schedulers, **config_components, **layout.unused}
    present = {name: tuple(map(str, value)) for name, value in index.items() if isinstance(value, list) and any(value)}
    for name, class_ref in present.items():
        if class_ref not in table.get(name, ()):
            works = ", ".join(".".join(each) for each in table.get(name, ())) or "nothing"
            raise ModelError(
                f"model_index.json: '{name[:60]}' is {'.'.join(class_ref)[:80]}; clipgen loads {works} there."
            )
    required = {name for name, spec in layout.networks.items() if spec.required}
    needed = required | {name for name in layout.tokenizers if encoder_of(name) in {*required, *networks}}
    if missing := sorted((needed | {"scheduler", *config_components}) - present.keys()):
        raise ModelError(f"model_index.json names no {missing[0]}.")


def _class_refs(
    index: dict[str, Any], layout: Layout, has_network: Callable[[str], bool]
) -> Iterator[tuple[str, ClassRef]]:
    """Yields the networks in the index, and those with files that the index does not name, with their classes."""
    for name, spec in layout.networks.items():
        match index.get(name):
            case [str(library), str(class_name)] if (library, class_name) in spec.saved_as:
                yield name, spec.classes[0]
            case [str(library), str(class_name)]:
                yield name, (library, class_name)
            case None if has_network(name):
                yield name, spec.classes[0]


def _scheduler_config(config: dict[str, Any], class_name: str) -> dict[str, Any]:
    """Returns a scheduler's config with the class that the index names, as diffusers does."""
    config = {**config, "_class_name": class_name}
    steps, trained = config.get("num_train_timesteps", 1000), config.get("trained_betas") or []
    if type(steps) is not int or not 0 < steps <= MAX_TIMESTEPS or not isinstance(trained, list):
        raise ModelError(f"scheduler/{SCHEDULER_CONFIG}: num_train_timesteps must be 1 to {MAX_TIMESTEPS:,}.")
    return config


def _tokenizer_config(name: str, files: TokenizerFiles) -> dict[str, Any]:
    """Returns a tokenizer's config after checking all JSON files of the tokenizer and its length."""
    config = {**read_json(files.folder / "tokenizer_config.json"), **files.options}
    for path in sorted(files.folder.glob("*.json")):
        read_json(path, limit=MAX_TOKENIZER, any_keys=path.name in ("vocab.json", "tokenizer.json"))
    length = config.get("model_max_length")
    if type(length) is not int or not 3 <= length <= MAX_TOKENS:
        limits = f"3 to {MAX_TOKENS}"
        raise ModelError(f"{name}/tokenizer_config.json: model_max_length must be {limits}, got '{length}'.")
    return config


def _check_vocabulary(name: str, files: TokenizerFiles, encoder: Mapping[str, Any]) -> None:
    """Raises ModelError if a tokenizer has no vocabulary, or tokens beyond the embeddings of its text encoder."""
    if not has_vocabulary(path.name for path in files.folder.iterdir()):
        raise ModelError(f"{name} has no vocabulary (tokenizer.json, vocab.json or spiece.model).")
    largest, embeddings = _largest_id(files.folder), encoder.get("vocab_size")
    if isinstance(embeddings, int) and largest >= embeddings:
        raise ModelError(f"{name} has token ids up to {largest:,}, {encoder_of(name)} embeds only {embeddings:,}.")


def _largest_id(folder: Path) -> int:
    """Returns the largest token id of a vocabulary, without added tokens; -1 if only a binary file has it."""
    if (folder / "tokenizer.json").is_file():
        model = read_json(folder / "tokenizer.json", limit=MAX_TOKENIZER, any_keys=True).get("model")
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
    elif (folder / "vocab.json").is_file():
        vocabulary = read_json(folder / "vocab.json", limit=MAX_TOKENIZER, any_keys=True)
    else:
        return -1
    if isinstance(vocabulary, list):  # Unigram: the id is the position
        return len(vocabulary) - 1
    ids = vocabulary.values() if isinstance(vocabulary, dict) else ()
    if not ids or not all(type(number) is int for number in ids):
        raise ModelError(f"{folder.name} has no valid vocabulary.")
    return max(ids)


def _defaults(path: Path) -> dict[str, Any]:
    """Returns the Settings fields that the model's clipgen.json recommends; {} if it recommends none."""
    values = read_json(path).get("settings") if path.is_file() else {}
    if not isinstance(values, dict) or not values.keys() <= set(MODEL_FIELDS):
        raise ModelError(f"clipgen.json: 'settings' may hold {', '.join(MODEL_FIELDS)}, nothing else.")
    try:
        return {name: check_field(name, value) for name, value in values.items()}
    except SettingsError as error:
        raise ModelError(f"clipgen.json: {error}") from None


def read_vocabulary(folder: Path) -> Vocabulary | None:
    """Returns the vocabulary that `vocabulary` in a model's clipgen.json names, None if it names none.

    Raises ModelError for an unknown name.
    """
    path = folder / "clipgen.json"
    name = read_json(path).get("vocabulary") if path.is_file() else None
    if name is not None and name not in tuple(VOCABULARIES):
        raise ModelError(f"clipgen.json: 'vocabulary' must be {' or '.join(VOCABULARIES)}, got '{printable(name)}'.")
    return None if name is None else VOCABULARIES[name]


def _check_default_size(defaults: Mapping[str, Any], size_limits: SizeLimits, model: str) -> None:
    """Raises ModelError if a model recommends a size that it cannot generate."""
    try:
        size_limits.check(defaults.get("width"), defaults.get("height"), model)
    except SettingsError as error:
        raise ModelError(f"clipgen.json: {error}") from None
