"""Checks a model folder before anything is loaded: index, configs, headers, and that the networks fit together."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from clipgen.errors import ModelError, SettingsError
from clipgen.hashing import sha256_of
from clipgen.models.find import ModelFolder
from clipgen.models.header import MAX_TOKENIZER, read_json
from clipgen.models.layout import CheckedModel, ClassRef, Layout, SizeLimits, encoder_of
from clipgen.models.network import make_network, read_files
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
    index = read_json(source.path / "model_index.json")
    name = str(index.get("_class_name"))
    if name in PARTS:
        raise ModelError(f"Pipeline class '{name}' is {PARTS[name]}.")
    if name not in layouts:
        raise ModelError(f"Pipeline class '{name[:60]}' is not supported. Works: {', '.join(layouts)}.")
    layout = layouts[name]
    class_refs = dict(_class_refs(source.path, index, layout))
    _check_index(index, layout, class_refs.keys())
    scheduler = _scheduler_config(source.path / "scheduler" / "scheduler_config.json", index["scheduler"][1])
    check_scheduler(scheduler, layout)
    tokenizers = {n: _tokenizer_config(source.path / n) for n in layout.tokenizers if encoder_of(n) in class_refs}
    defaults = _defaults(source.path / "clipgen.json")
    files = {name: read_files(source.path / name) for name in class_refs}
    networks = {
        name: make_network(name, class_ref, files[name], layout.networks[name])
        for name, class_ref in class_refs.items()
    }
    modules = {name: network.module for name, network in networks.items()}
    layout.check(modules, tokenizers)
    _check_clip(modules)
    size_limits = layout.size_limits(modules)
    _check_default_size(defaults, size_limits, source.name)
    config_components = {
        name: read_json(source.path / name / component.file) for name, component in layout.config_components.items()
    }
    return CheckedModel(
        source,
        layout,
        networks,
        tuple(tokenizers),
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


def _check_index(index: dict[str, Any], layout: Layout, networks: Collection[str]) -> None:
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


def _class_refs(folder: Path, index: dict[str, Any], layout: Layout) -> Iterator[tuple[str, ClassRef]]:
    """Yields the networks in the index, and those with a folder that the index does not name, with their classes."""
    for name, spec in layout.networks.items():
        match index.get(name):
            case [str(library), str(class_name)] if (library, class_name) in spec.saved_as:
                yield name, spec.classes[0]
            case [str(library), str(class_name)]:
                yield name, (library, class_name)
            case None if (folder / name).is_dir():
                yield name, spec.classes[0]


def _scheduler_config(path: Path, class_name: str) -> dict[str, Any]:
    """Returns a scheduler's config with the class that the index names, as diffusers does."""
    config = {**read_json(path), "_class_name": class_name}
    steps, trained = config.get("num_train_timesteps", 1000), config.get("trained_betas") or []
    if type(steps) is not int or not 0 < steps <= MAX_TIMESTEPS or not isinstance(trained, list):
        raise ModelError(f"scheduler/{path.name}: num_train_timesteps must be 1 to {MAX_TIMESTEPS:,}.")
    return config


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    """Returns a tokenizer's config after checking all JSON files of the tokenizer and its length."""
    config = read_json(folder / "tokenizer_config.json")
    for path in sorted(folder.glob("*.json")):
        read_json(path, limit=MAX_TOKENIZER, any_keys=path.name in ("vocab.json", "tokenizer.json"))
    length = config.get("model_max_length")
    if type(length) is not int or not 3 <= length <= MAX_TOKENS:
        limits = f"3 to {MAX_TOKENS}"
        raise ModelError(f"{folder.name}/tokenizer_config.json: model_max_length must be {limits}, got '{length}'.")
    return config


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
