"""The components of the form, one for each Settings field, grouped by how soon people need them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from clipgen.home import adapter_files
from clipgen.sampling.schedulers import SCHEDULERS
from clipgen.settings.checks import DECODERS, GUARDS, LOCAL, METHODS
from clipgen.settings.preset import list_presets
from clipgen.settings.settings import ADAPTER_FIELDS, DEFAULTS, FIELDS, LIST_FIELDS, MODEL_FIELDS, Settings

from ..image_store import IMAGE_SUFFIXES

# `like` and `vary` name an image and its weight in one field, "image.png:0.5"; the form has a component for each.
LIKE_WEIGHT, VARY_WEIGHT = "like_weight", "vary_weight"
WEIGHTS: Mapping[str, str] = {"like": LIKE_WEIGHT, "vary": VARY_WEIGHT}

PROMPT = ("prompt",)
LOOK = ("preset", "images", "negative_prompt")
VARY = ("vary", VARY_WEIGHT)
GUIDANCE = ("guidance", "clip_guidance_scale", "like", LIKE_WEIGHT, "guidance_scale")
EXPERT = ("width", "height", "steps", "scheduler", "seed", "model")
HIDDEN = ("prompt_template",)  # a label that is stored in the image and has no effect on it
ADVANCED = tuple(name for name in FIELDS if name not in (*PROMPT, *LOOK, *VARY, *GUIDANCE, *EXPERT, *HIDDEN))
FIELD_ORDER = (*PROMPT, *LOOK, *VARY, *GUIDANCE, *EXPERT, *ADVANCED)  # the order of the values in every handler

# Longer help texts for the most common fields; the others show the help text of Settings.
HINTS: Mapping[str, str] = {
    "preset": "A style that adds words to the prompt, or a group of settings for speed and quality.",
    "images": "Number of pictures. Each picture has its own seed.",
    "negative_prompt": "What the picture should not contain, for example: trees, blurry.",
    "guidance_scale": "Classifier-free guidance (CFG): a higher scale follows the prompt more closely. "
    "1 = off, 4 to 8 is usual, above 15 pictures are oversaturated.",
    "guidance": "CLIP scores pictures against the prompt. It can guide the denoising, or select the best of several.",
    "clip_guidance_scale": "How strongly CLIP guides the picture towards the prompt. 0 = off.",
    "like": "CLIP also guides the result towards this picture.",
    LIKE_WEIGHT: "The prompt has weight 1. A negative weight guides away from the picture.",
    "vary": "Generates new pictures with the same content as this one.",
    VARY_WEIGHT: "1 = this picture only, 0 = the prompt only.",
    "steps": "Number of denoising steps. More steps are slower and add detail; 20 is usual.",
    "scheduler": "The sampling method.",
    "seed": "Seed of the random noise. The same seed with the same settings gives the same picture.",
    "model": "The model that generates the picture.",
    "embedding": "Learned words, one per line; their names in the prompt stand for them.",
    "lora": "Small files that change the model, one per line as name or name:weight.",
}
MAX_NAMES = 30  # LoRAs listed in the form
METHOD_LABELS = {
    "off": "Off",
    "clip": "CLIP gradient",
    "pick": "Best of several",
    "clip+pick": "CLIP gradient, best of several",
    "steer": "Particle resampling",
    "optimise": "Optimise the noise",
}
LABELS = {
    "like": "Target picture",
    LIKE_WEIGHT: "Weight of the target picture",
    "vary": "Picture to vary",
    VARY_WEIGHT: "Weight of the picture to vary",
}
SPELLINGS = {"apg": "APG", "lora": "LoRA", "clip": "CLIP", "cfg": "CFG", "unet": "UNet"}
MODEL_DEFAULT = "the model's default"
OPTIONAL = tuple(name for name, value in DEFAULTS.items() if value is None)  # text fields: empty means None
HELP = {field.name: field.metadata["help"] for field in dataclasses.fields(Settings)}
CHOICES: Mapping[str, tuple[str, ...]] = {
    "scheduler": tuple(SCHEDULERS),
    "guide_decoder": DECODERS,
    "guard": GUARDS,
    "prompt_syntax": ("a1111", "plain"),
    "long_prompt": ("cut", "chunk", "error"),
}


def label(name: str) -> str:
    """Returns the label of a field: `clip_guidance_scale` -> `CLIP guidance scale`."""
    if name in LABELS:
        return LABELS[name]
    words = " ".join(SPELLINGS.get(word, word) for word in name.split("_"))
    return words[0].upper() + words[1:]


def heading(name: str) -> str:
    """Returns label and hint as HTML, for a file component, which shows neither."""
    return f'<p class="heading"><b>{label(name)}</b>{HINTS[name]}</p>'


def hint(name: str) -> str:
    """Returns the help text of a field; for LoRAs it lists those that the server has."""
    text = HINTS[name] if name in HINTS else HELP[name]
    if name not in ADAPTER_FIELDS:
        return text
    names = sorted(adapter_files(f"{name}s"))
    return f"{text} On this server: {', '.join(names[:MAX_NAMES]) or 'none'}{' ...' if len(names) > MAX_NAMES else ''}"


def build_field(name: str, models: Sequence[str], vaes: Sequence[str], max_images: int) -> gr.components.Component:
    """Returns the component of a field; `values.read` converts what it holds into a Settings value.

    Seeds are text, because a browser rounds integers above 2^53.
    """
    common: dict[str, Any] = {
        "label": label(name),
        "info": hint(name),
        "elem_id": f"field-{name}",
    }
    if name == "prompt":
        return gr.Textbox(
            value="",
            label="Prompt",
            show_label=False,
            lines=3,
            max_lines=8,
            placeholder="Type a prompt, or paste settings",
            elem_id="field-prompt",
            autofocus=True,
        )
    if name == "preset":
        choices = [("None", "")] + [(preset.title, preset.name) for preset in list_presets()]
        return gr.Dropdown(choices, value="", **common)
    if name == "images":
        return gr.Slider(1, max_images, value=1, step=1, buttons=[], **common)
    if name == "guidance":
        return gr.Radio([(METHOD_LABELS.get(method, method), method) for method in METHODS], value="off", **common)
    if name == "clip_guidance_scale":
        return gr.Slider(0, 1, value=DEFAULTS[name], step=0.05, buttons=[], **common)
    if name in WEIGHTS:
        return gr.File(
            file_types=IMAGE_SUFFIXES, type="filepath", height=84, show_label=False, elem_id=common["elem_id"]
        )
    if name in WEIGHTS.values():
        low, high = LOCAL.target if name == LIKE_WEIGHT else LOCAL.part
        return gr.Slider(low, high, value=1, step=0.1, buttons=[], visible=False, **common)
    if name == "seed":
        return gr.Textbox("", placeholder="random", max_lines=1, **common)
    if name == "model":
        return gr.Dropdown(list(models), value=models[0], **common)
    if name == "vae":
        return gr.Dropdown([(MODEL_DEFAULT, ""), *vaes], value="", allow_custom_value=True, **common)
    return _build_by_type(name, common)


def _build_by_type(name: str, common: Mapping[str, Any]) -> gr.components.Component:
    """Returns the component that fits the type of a field's default value."""
    default = DEFAULTS[name]
    if choices := CHOICES.get(name):
        options = [*([(MODEL_DEFAULT, "")] if default is None else []), *((each, each) for each in choices)]
        return gr.Dropdown(options, value=default or "", **common)
    if isinstance(default, bool):
        return gr.Checkbox(default, **common)
    if name in LIST_FIELDS:
        return gr.Textbox("", lines=1, max_lines=4, placeholder="one per line", **common)
    if isinstance(default, str):
        return gr.Textbox(default, lines=1, max_lines=4, **common)
    if default is None:
        return gr.Textbox("", placeholder=MODEL_DEFAULT if name in MODEL_FIELDS else "none", max_lines=1, **common)
    return gr.Number(default, step=0.05 if isinstance(default, float) else 1, **common)
