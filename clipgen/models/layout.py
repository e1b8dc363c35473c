"""What a model folder of a family contains, and the results of checking one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from clipgen.errors import SettingsError
from clipgen.models.header import Entry
from clipgen.models.ids import ModelFolder
from clipgen.world.vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

ClassRef = tuple[str, str]  # library and class, as in model_index.json
ConvertFile = Callable[[dict[str, "Tensor"]], dict[str, "Tensor"]]
T = TypeVar("T")
POSITION_IDS = "position_ids"  # a buffer of CLIP that older files hold and current ones do not


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
    """One network of a family.

    Attributes:
        classes: the classes that it may have.
        rename: maps tensor names in files of older library versions to current ones.
        required: whether the model must have it.
        full_precision: keep it in float32 whatever the dtype of the model.
        tied: tensor name -> the tensor it shares memory with; files may omit either.
        not_half: parts of the names of tensors that overflow in float16 and stay in float32.
        saved_as: other classes that model_index.json may name for the same files; classes[0] is built in their place.
        computes_buffers: the constructor computes buffers that no file holds, such as rotary frequencies.
    """

    classes: tuple[ClassRef, ...]
    rename: Callable[[str], str] = str
    required: bool = True
    full_precision: bool = False
    tied: Mapping[str, str] = field(default_factory=dict)
    not_half: tuple[str, ...] = ()
    saved_as: tuple[ClassRef, ...] = ()
    computes_buffers: bool = False


@dataclass(frozen=True)
class ConfigComponent:
    """A component without weights, of which only the config is read: the classes it may have, and its file."""

    classes: tuple[ClassRef, ...]
    file: str


@dataclass(frozen=True)
class Layout:
    """The components that model folders of one family contain.

    Attributes:
        networks: by component name. A network without an entry in model_index.json (`clip`) is loaded if its folder
            exists.
        tokenizers: the allowed classes by component name; a tokenizer is required if its text encoder exists.
        schedulers: the class names of supported schedulers.
        unused: components that are allowed and never loaded.
        predictions: the prediction types that the denoiser supports.
        guidance: what guidance_scale does, in words for users.
        check: takes the networks on the meta device and the tokenizers' configs by name; raises ModelError if they do
            not fit together.
        size_limits: returns the size limits of the networks.
        config_components: components of which only the config is read.
        image_networks: the networks that the model needs to take an image; () if the family never does.
        requires_image: the family only generates variations of an image.
        clip_text: the prompt is read by CLIP text encoders alone, so that clip_skip, windows of a long prompt and
            textual inversion work.
        lora_loader: the class of diffusers that loads LoRA files of the family; None if there is none.
        prefers_bfloat16: its models were trained in bfloat16, and can overflow in float16.
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
    clip_text: bool = False
    lora_loader: str | None = None
    prefers_bfloat16: bool = False


def encoder_of(tokenizer: str) -> str:
    """Returns the name of a tokenizer's text encoder: tokenizer_2 belongs to text_encoder_2."""
    return tokenizer.replace("tokenizer", "text_encoder")


def add_tied(tensors: dict[str, T], spec: NetworkSpec) -> dict[str, T]:
    """Returns a network's tensors together with the tied tensors that its files omit."""
    return {**{name: tensors[other] for name, other in spec.tied.items() if other in tensors}, **tensors}


@dataclass(frozen=True)
class NetworkFiles:
    """The config, the weight files and their headers of one network.

    `convert` selects the network's tensors from those of a file and renames them; None if a file holds only them.
    """

    config: dict[str, Any]
    paths: tuple[Path, ...]
    header: dict[str, Entry]
    convert: ConvertFile | None = None


@dataclass(frozen=True)
class CheckedNetwork:
    """A network whose files have been checked: its module on the meta device, and its weight files."""

    module: Module
    paths: tuple[Path, ...]
    spec: NetworkSpec
    convert: ConvertFile | None = None


@dataclass(frozen=True)
class TokenizerFiles:
    """The folder of a tokenizer, and the options that replace those of its tokenizer_config.json."""

    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckedModel:
    """A model that has passed the preflight; its weights are not loaded yet.

    Attributes:
        source: the model's folder.
        tokenizers: the files of its tokenizers by component name.
        scheduler: the scheduler's config.
        index: model_index.json.
        defaults: the Settings fields that its clipgen.json recommends.
        config_components: the configs of components without weights.
        vocabulary: the vocabulary that its clipgen.json names.
    """

    source: ModelFolder
    layout: Layout
    networks: Mapping[str, CheckedNetwork]
    tokenizers: Mapping[str, TokenizerFiles]
    scheduler: dict[str, Any]
    index: dict[str, Any]
    defaults: dict[str, Any]
    size_limits: SizeLimits
    config_components: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    vocabulary: Vocabulary | None = None

    @property
    def accepts_image(self) -> bool:
        """Whether the model has the networks that it needs to take an image."""
        return bool(self.layout.image_networks) and all(name in self.networks for name in self.layout.image_networks)
