"""What a family expects of a model folder, and what the preflight found in one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from clipgen.errors import SettingsError
from clipgen.models.find import ModelFolder
from clipgen.models.header import Entry
from clipgen.world.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch.nn import Module

ClassRef = tuple[str, str]  # a library and a class of it, as model_index.json names them
T = TypeVar("T")
POSITIONS = "position_ids"  # CLIP counts its places in a buffer; older files hold it, today's do not


@dataclass(frozen=True)
class SizeLimits:
    """The image sizes a model can generate, in pixels.

    `multiple_of` divides width and height; neither exceeds `max_size` (None: no limit).
    """

    multiple_of: int
    max_size: int | None = None

    def check(self, width: int | None, height: int | None, model: str) -> None:
        """Raises SettingsError, naming the field, if the model cannot generate this size; None means its default."""
        for name, side in (("width", width), ("height", height)):
            if side is not None and side % self.multiple_of:
                rule = f"a multiple of {self.multiple_of}"
            elif side is not None and self.max_size is not None and side > self.max_size:
                rule = f"at most {self.max_size}"
            else:
                continue
            raise SettingsError(f"{name} must be {rule} for model '{model}', got '{side}'", field=name)


@dataclass(frozen=True)
class NetworkSpec:
    """One network of a family: the classes it may be of, and how tensor names of older files map to today's.

    `tied` names tensors that are another one, so that a file may leave them out. `full_precision` keeps the network in
    float32 whatever the others run in; `not_half` are pieces of the names of tensors that float16 is too narrow for.
    """

    classes: tuple[ClassRef, ...]
    rename: Callable[[str], str] = str
    required: bool = True
    full_precision: bool = False
    tied: Mapping[str, str] = field(default_factory=dict)
    not_half: tuple[str, ...] = ()


@dataclass(frozen=True)
class ConfigComponent:
    """A component that is a config and nothing else: the classes it may be of, and its file."""

    classes: tuple[ClassRef, ...]
    file: str


@dataclass(frozen=True)
class Layout:
    """What a family's folder may hold: networks, tokenizers, a scheduler; `unused` is known and never loaded.

    A network that model_index.json does not name (`clip`) counts if its folder is there, a tokenizer where the text
    encoder of its number is. `predictions` are what the denoiser may predict, `guidance` says in words what
    guidance_scale does. `check` sees the networks, not yet filled, and the tokenizers' configs, and raises ModelError
    if they do not belong together; `size_limits` reads the sizes off the networks. `config_components` are other
    components that are read as configs. `sees` names the networks by which it can be told a picture, none if it never
    can; a family that `requires_image` always must.
    """

    family: str
    pipeline_classes: tuple[str, ...]
    networks: Mapping[str, NetworkSpec]
    tokenizers: Mapping[str, tuple[ClassRef, ...]]
    schedulers: tuple[str, ...]
    unused: Mapping[str, tuple[ClassRef, ...]]
    predictions: tuple[str, ...]
    guidance: str
    check: Callable[[Mapping[str, Any], Mapping[str, dict[str, Any]]], None]
    size_limits: Callable[[Mapping[str, Any]], SizeLimits]
    config_components: Mapping[str, ConfigComponent] = field(default_factory=dict)
    image_networks: tuple[str, ...] = ()
    requires_image: bool = False


def encoder_of(tokenizer: str) -> str:
    """Returns the name of the text encoder that a tokenizer serves: tokenizer_2 belongs to text_encoder_2."""
    return tokenizer.replace("tokenizer", "text_encoder")


def with_tied(tensors: dict[str, T], part: NetworkSpec) -> dict[str, T]:
    """Returns a network's tensors, by their present-day names, together with those that are another one of them."""
    return {**{name: tensors[other] for name, other in part.tied.items() if other in tensors}, **tensors}


@dataclass(frozen=True)
class NetworkFiles:
    """The files of one network, read as far as their headers."""

    config: dict[str, Any]
    paths: tuple[Path, ...]
    header: dict[str, Entry]


@dataclass(frozen=True)
class CheckedNetwork:
    """A network whose files have passed: its module on the meta device, and the files that will fill it."""

    module: Module
    paths: tuple[Path, ...]
    part: NetworkSpec


@dataclass(frozen=True)
class CheckedModel:
    """A model that has passed the preflight; nothing of its weights is in memory yet.

    `tokenizers` are the names of those it has, `scheduler` is the scheduler's config, `index` model_index.json;
    `defaults` are the Settings fields that its clipgen.json recommends, `size_limits` the image sizes it can generate,
    `config_components` the configs of components that are nothing else. `vocabulary` is what its clipgen.json declares.
    """

    found: ModelFolder
    layout: Layout
    networks: Mapping[str, CheckedNetwork]
    tokenizers: tuple[str, ...]
    scheduler: dict[str, Any]
    index: dict[str, Any]
    defaults: dict[str, Any]
    size_limits: SizeLimits
    config_components: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    vocabulary: Vocabulary | None = None

    @property
    def accepts_image(self) -> bool:
        """Whether it brings what it takes to be told a picture."""
        return bool(self.layout.image_networks) and all(name in self.networks for name in self.layout.image_networks)
