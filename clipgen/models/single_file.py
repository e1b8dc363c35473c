"""A checkpoint in one .safetensors or .gguf file, with the tensor names of its original repository.

The weights of each network are converted to diffusers' names, as `from_single_file` does. A single file has no
configs and no tokenizer. Configs come from the package, tokenizers and missing networks from the hub cache; a folder
next to the file with the same name (`x/` for `x.safetensors`), in diffusers' layout, replaces any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipgen.errors import ModelError, ModelNotFound
from clipgen.models.convert import (
    Convert,
    convert_clip,
    convert_flux,
    convert_open_clip,
    convert_projected_open_clip,
    convert_unet,
    convert_vae,
    keep,
)
from clipgen.models.files import SCHEDULER_CONFIG, FolderFiles
from clipgen.models.gguf import read_gguf_header
from clipgen.models.header import Entry, parse_json, read_header, read_json, weight_files
from clipgen.models.ids import cached_folder, parse_id
from clipgen.models.layout import ConvertFile, NetworkFiles, TokenizerFiles
from clipgen.models.network import check_sizes

if TYPE_CHECKING:
    from torch import Tensor

WORKS = "Works: Stable Diffusion 1 and 2, SDXL, Flux"
CLIP_REPOSITORY = "openai/clip-vit-large-patch14"  # its tokenizer is that of all these models
UNET_INPUT = "model.diffusion_model.input_blocks.0.0.weight"
CONVERSION_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Kind:
    """A kind of checkpoint.

    Attributes:
        name: the name of its configs in the package.
        title: the name for messages.
        parts: for each network, the prefix of its tensors in the file and the conversion to diffusers' names.
        repositories: hub repositories that have the networks and tokenizers which such files lack.
    """

    name: str
    title: str
    parts: Mapping[str, tuple[str, Convert]]
    repositories: tuple[str, ...]


LDM = {"unet": ("model.diffusion_model.", convert_unet), "vae": ("first_stage_model.", convert_vae)}
SD1 = Kind(
    "sd1",
    "Stable Diffusion 1",
    {**LDM, "text_encoder": ("cond_stage_model.transformer.", convert_clip)},
    ("stable-diffusion-v1-5/stable-diffusion-v1-5", "runwayml/stable-diffusion-v1-5"),
)
SD2 = Kind(
    "sd2",
    "Stable Diffusion 2",
    {**LDM, "text_encoder": ("cond_stage_model.model.", convert_open_clip)},
    ("stabilityai/stable-diffusion-2-1",),
)
SDXL = Kind(
    "sdxl",
    "SDXL",
    {
        **LDM,
        "text_encoder": ("conditioner.embedders.0.transformer.", convert_clip),
        "text_encoder_2": ("conditioner.embedders.1.model.", convert_projected_open_clip),
    },
    ("stabilityai/stable-diffusion-xl-base-1.0",),
)
FLUX_PARTS = {
    "transformer": ("model.diffusion_model.", convert_flux),
    "vae": ("vae.", convert_vae),
    "text_encoder": ("text_encoders.clip_l.transformer.", convert_clip),
    "text_encoder_2": ("text_encoders.t5xxl.transformer.", keep),
}
FLUX_REPOSITORIES = ("black-forest-labs/FLUX.1-schnell", "black-forest-labs/FLUX.1-dev")
FLUX_SCHNELL = Kind("flux_schnell", "Flux schnell", FLUX_PARTS, FLUX_REPOSITORIES)
FLUX_DEV = Kind("flux_dev", "Flux dev", FLUX_PARTS, FLUX_REPOSITORIES[::-1])


def detect_kind(file: str, header: Mapping[str, Entry]) -> Kind:
    """Returns the kind of a checkpoint by the names of its tensors; raises ModelError with what the file holds."""

    def has(*prefixes: str) -> bool:
        return any(name.startswith(prefixes) for name in header)

    if has("lora_", "base_model.model.") or any(".lora" in name for name in header):
        raise ModelError(f"'{file}' is a LoRA, not a model: use it with --lora.")
    if has("double_blocks.0.img_attn.", "model.diffusion_model.double_blocks.0.img_attn."):
        if any("distilled_guidance_layer" in name for name in header):
            raise ModelError(f"'{file}' is a Chroma model, which is not supported as a single file. {WORKS}.")
        return FLUX_DEV if any("guidance_in." in name for name in header) else FLUX_SCHNELL
    if has("encoder.", "decoder.") and has("decoder.up.", "decoder.up_blocks."):
        raise ModelError(f"'{file}' is a VAE, not a model: use it with --vae.")
    kind = next((kind for kind in (SDXL, SD2, SD1) if has(list(kind.parts.values())[-1][0])), None)
    if kind is None or UNET_INPUT not in header:
        raise ModelError(f"'{file}' is not a checkpoint that clipgen knows. {WORKS}.")
    if "edm_mean" in header:
        raise ModelError(f"'{file}' is made for EDM schedulers (Playground 2.5), which are not supported. {WORKS}.")
    shape = header[UNET_INPUT].shape
    if len(shape) == 4 and shape[1] != 4:
        raise ModelError(f"'{file}' takes {shape[1]} channels: it needs an image or a mask in addition to the prompt.")
    return kind


class SingleFile:
    """The files of a checkpoint in one file; see the module."""

    def __init__(self, weights: Path, folder: Path) -> None:
        self.weights = weights
        self.folder = folder
        self.header = read_gguf_header(weights) if weights.suffix.lower() == ".gguf" else read_header(weights)
        self.kind = detect_kind(weights.name, self.header)
        data = (files("clipgen.models") / "configs" / f"{self.kind.name}.json").read_bytes()
        self.bundled = parse_json(data, f"configs/{self.kind.name}.json")

    def index(self) -> dict[str, Any]:
        """Returns the model_index.json of the kind."""
        return self._config(self.folder / "model_index.json", "model_index")

    def scheduler(self) -> dict[str, Any]:
        """Returns the scheduler's config; `v_pred` and `ztsnr` in the file mark models that predict v."""
        config = self._config(self.folder / "scheduler" / SCHEDULER_CONFIG, "scheduler")
        if "v_pred" in self.header:
            config = {**config, "prediction_type": "v_prediction"}
        return {**config, "rescale_betas_zero_snr": True} if "ztsnr" in self.header else config

    def has_network(self, name: str) -> bool:
        """Tells whether the folder next to the file has a network that the index does not name, such as `clip`."""
        return (self.folder / name).is_dir()

    def network(self, name: str) -> NetworkFiles:
        """Returns the files of a network: in the file, in the folder next to it, or in the hub cache."""
        prefix = self._prefix(name)
        if prefix is not None:
            return self._converted(name, prefix)
        if (folder := self._network_folder(name)) is not None:
            return FolderFiles(folder).network(name)
        raise ModelNotFound(
            f"'{self.weights.name}' ({self.kind.title}) has no {name}: put it into the folder "
            f"'{self.folder.name}/{name}' next to the file, or download it: clipgen models pull "
            f"{self.kind.repositories[0]}",
            field="model",
        )

    def tokenizer(self, name: str) -> TokenizerFiles:
        """Returns the files of a tokenizer: in the folder next to the file, or in the hub cache."""
        if (self.folder / name).is_dir():
            return TokenizerFiles(self.folder / name)
        places = self._tokenizer_places(name)
        for repository, subfolder in places:
            with suppress(ModelNotFound):
                folder = cached_folder(parse_id(repository)) / subfolder
                if (folder / "tokenizer_config.json").is_file():
                    return TokenizerFiles(folder, self.bundled["tokenizers"][name])
        repository, _ = places[0]
        raise ModelNotFound(
            f"'{self.weights.name}' has no {name}, as all single files, and it is not on this machine: clipgen models "
            f"pull {repository}, or put it into the folder '{self.folder.name}/{name}' next to the file.",
            field="model",
        )

    def missing(self) -> list[tuple[str, str, bool]]:
        """Returns what is in none of file, folder next to it and hub cache, and where the hub has it.

        Each is (repository, folder in it, whether it is a tokenizer).
        """
        needed: list[tuple[str, str, bool]] = []
        for name in self.bundled["tokenizers"]:
            try:
                self.tokenizer(name)
            except ModelNotFound:
                needed.append((*self._tokenizer_places(name)[0], True))
        absent = [name for name in self.kind.parts if self._prefix(name) is None]
        lacking = [name for name in absent if self._network_folder(name) is None]
        return needed + [(self.kind.repositories[0], name, False) for name in lacking]

    def _network_folder(self, name: str) -> Path | None:
        """Returns the folder that has a network which the file lacks: the one next to it, or one in the hub cache."""
        if (self.folder / name).is_dir():
            return self.folder
        for repository in self.kind.repositories:
            with suppress(ModelNotFound, ModelError):
                folder = cached_folder(parse_id(repository))
                if weight_files(folder / name):
                    return folder
        return None

    def _tokenizer_places(self, name: str) -> list[tuple[str, str]]:
        """Returns the hub repositories and their folders that have a tokenizer."""
        is_clip = self.bundled["model_index"][name][1] == "CLIPTokenizer"
        own = [(repository, name) for repository in self.kind.repositories]
        return [(CLIP_REPOSITORY, ""), *own] if is_clip else own

    def component_config(self, name: str, file: str) -> dict[str, Any]:
        """Returns the config of a component without weights, from the folder next to the file."""
        return read_json(self.folder / name / file)

    def _config(self, path: Path, key: str) -> dict[str, Any]:
        """Returns a config from the folder next to the file if it has one, else from the package."""
        config: dict[str, Any] = read_json(path) if path.is_file() else self.bundled[key]
        return config

    def _prefix(self, name: str) -> str | None:
        """Returns the prefix of a network's tensors in the file; None if the file has none of them."""
        prefix = self.kind.parts[name][0] if name in self.kind.parts else None
        if prefix is not None and any(key.startswith(prefix) for key in self.header):
            return prefix
        return "" if name == "transformer" else None  # a file that holds only the transformer has no prefixes

    def _converted(self, name: str, prefix: str) -> NetworkFiles:
        """Returns a network of the file under diffusers' names; the conversion is tried without reading weights."""
        config = self._config(self.folder / name / "config.json", name)
        _, convert = self.kind.parts[name]
        label = f"'{self.weights.name}' ({self.kind.title}): its {name}"
        read = partial(select_tensors, prefix=prefix, convert=partial(convert, config=config), label=label)
        network = NetworkFiles(config, (self.weights,), converted_header(self.header, read), read)
        check_sizes(name, network)
        return network


def converted_header(header: Mapping[str, Entry], read: ConvertFile) -> dict[str, Entry]:
    """Returns the header of a file after a conversion, which is run on tensors without memory; raises ModelError."""
    import torch

    empty = {key: torch.empty(entry.shape, device="meta") for key, entry in header.items()}
    return {key: Entry("F32", tuple(tensor.shape)) for key, tensor in read(empty).items()}


def select_tensors(
    tensors: Mapping[str, Tensor], *, prefix: str, convert: Callable[[dict[str, Tensor]], dict[str, Tensor]], label: str
) -> dict[str, Tensor]:
    """Returns the tensors of one network of a file under diffusers' names; raises ModelError if some are missing."""
    selected = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    try:
        return convert(selected)
    except CONVERSION_ERRORS as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise ModelError(f"{label} cannot be converted ({type(error).__name__}: {reason}).") from error
