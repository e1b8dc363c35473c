"""The form: a component for every Settings field, folded by how soon people need it, and the way there and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr

from clipgen.sampling.schedulers import SCHEDULERS
from clipgen.settings.checks import DECODERS, GUARDS, LOCAL, METHODS, split_target
from clipgen.settings.preset import list_presets
from clipgen.settings.settings import DEFAULTS, FIELDS, LIST_FIELDS, MODEL_FIELDS, Settings, coerce

from .upload import KINDS

FIRST = ("prompt",)
LIKE_WEIGHT, VARY_WEIGHT = "like_weight", "vary_weight"  # no fields of their own: what stands behind the colon
WEIGHTS: Mapping[str, str] = {"like": LIKE_WEIGHT, "vary": VARY_WEIGHT}  # of fields that are a picture
VARY = ("vary", VARY_WEIGHT)
LOOK = ("preset", "images", "negative_prompt")
GUIDANCE = ("guidance", "clip_guidance_scale", "like", LIKE_WEIGHT, "guidance_scale")
EXPERT = ("width", "height", "steps", "scheduler", "seed", "model")
LEFT_OUT = ("prompt_template",)  # a label of a replay
FINE = tuple(name for name in FIELDS if name not in (*FIRST, *LOOK, *VARY, *GUIDANCE, *EXPERT, *LEFT_OUT))
SHOWN = (*FIRST, *LOOK, *VARY, *GUIDANCE, *EXPERT, *FINE)

# What the settings that people meet first mean, for somebody who has never seen such a form.
HINTS: Mapping[str, str] = {
    "preset": "A named look: it adds words to your prompt, or sets speed and quality.",
    "images": "How many to draw. Each has its own seed, so each is different.",
    "width": "Pixels, a multiple of 8.",
    "height": "Pixels, a multiple of 8.",
    "negative_prompt": "What you do not want to see, such as: trees, blurry.",
    "guidance_scale": "How strictly the words are followed: 1 is free, 4 to 8 usual, 15 stiff. Others call it CFG.",
    "guidance": "CLIP reads pictures and words. It can steer the drawing, or choose the best of several.",
    "clip_guidance_scale": "How hard CLIP pulls the picture towards the words.",
    "like": "A picture that CLIP pulls towards too, beside your words.",
    LIKE_WEIGHT: "Beside the words, which count 1. Below 0 it pulls away.",
    "vary": "Draws other pictures of what CLIP sees in this one.",
    VARY_WEIGHT: "1 is the picture alone, 0 your words alone.",
    "budget": "How much longer a picture may take than an unguided one, 1.5 for half as long again; it chooses.",
    "steps": "How often the picture is refined. More is slower and finer; 20 is usual.",
    "scheduler": "The recipe of refining. If you do not care, neither does the picture.",
    "seed": "The number the noise grows from: the same seed and settings give the same picture.",
    "model": "Who draws.",
}
METHOD_NAMES = {
    "off": "Off",
    "clip": "Steer",
    "pick": "Best of several",
    "clip+pick": "Steer and choose",
    "steer": "Let the best multiply",
    "optimise": "Better start noise",
}
OWN = "the model's own"
AS_TEXT = tuple(
    name for name, value in DEFAULTS.items() if value is None
)  # what may be left open; a browser rounds seeds
HELP = {field.name: field.metadata["help"] for field in dataclasses.fields(Settings)}
PICTURES = {LIKE_WEIGHT: "weight of that picture", "vary": "vary a picture", VARY_WEIGHT: "how much of it"}
SPELLED = {"clip": "CLIP", "cfg": "CFG", "unet": "UNet"}
CHOICES: Mapping[str, tuple[str, ...]] = {
    "scheduler": tuple(SCHEDULERS),
    "guide_decoder": DECODERS,
    "guard": GUARDS,
    "prompt_syntax": ("a1111", "plain"),
    "long_prompt": ("cut", "error"),
}


def label(name: str) -> str:
    """Returns a field's name as people read it: `guidance_scale` -> `Guidance scale`."""
    words = PICTURES.get(name) or " ".join(SPELLED.get(w, w) for w in name.split("_"))
    return words[0].upper() + words[1:]


def legend(name: str) -> str:
    """Returns name and hint, in HTML, of a field whose component shows neither."""
    return f'<p class="legend"><b>{label(name)}</b>{HINTS[name]}</p>'


def build(name: str, models: Sequence[str], most_images: int) -> gr.components.Component:
    """Makes the component of one field; raw values go through `read`, and Settings checks them."""
    common: dict[str, Any] = {
        "label": label(name),
        "info": HINTS[name] if name in HINTS else HELP[name],
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
        return gr.Slider(1, most_images, value=1, step=1, buttons=[], **common)
    if name == "guidance":
        return gr.Radio([(METHOD_NAMES.get(method, method), method) for method in METHODS], value="off", **common)
    if name == "clip_guidance_scale":
        return gr.Slider(0, 1, value=DEFAULTS[name], step=0.05, buttons=[], **common)
    if name in WEIGHTS:
        return gr.File(file_types=KINDS, type="filepath", height=84, show_label=False, elem_id=common["elem_id"])
    if name in WEIGHTS.values():
        least, most = LOCAL.target if name == LIKE_WEIGHT else LOCAL.part
        return gr.Slider(least, most, value=1, step=0.1, buttons=[], visible=False, **common)
    if name == "seed":
        return gr.Textbox("", placeholder="random", max_lines=1, **common)
    if name == "model":
        return gr.Dropdown(list(models), value=models[0], **common)
    return _plain(name, common)


def _plain(name: str, common: Mapping[str, Any]) -> gr.components.Component:
    """Makes a component by what the field's values are: names, switch, number, lines or text."""
    default = DEFAULTS[name]
    if choices := CHOICES.get(name):
        names = [*([(OWN, "")] if default is None else []), *((each, each) for each in choices)]
        return gr.Dropdown(names, value=default or "", **common)
    if isinstance(default, bool):
        return gr.Checkbox(default, **common)
    if name in LIST_FIELDS:
        return gr.Textbox("", lines=1, max_lines=4, placeholder="one a line", **common)
    if isinstance(default, str):
        return gr.Textbox(default, lines=1, max_lines=4, **common)
    if default is None:
        return gr.Textbox("", placeholder=OWN if name in MODEL_FIELDS else "none", max_lines=1, **common)
    return gr.Number(default, step=0.05 if isinstance(default, float) else 1, **common)


def read(raw: Sequence[Any]) -> dict[str, Any]:
    """Returns the values of a form as Settings takes them, unchecked: an empty text is None where that is a value.

    Seeds, lists and what may be left to the model are texts on the page. Raises SettingsError for a text that is no
    number.
    """
    values = dict(zip(SHOWN, raw, strict=True))
    for name, weight in WEIGHTS.items():
        values[name] = _target(values[name], values.pop(weight))
    values["like"] = [values["like"]] if isinstance(values["like"], str) else values["like"] or []
    for name, value in values.items():
        if name in AS_TEXT and isinstance(value, str):
            values[name] = coerce(name, value.strip())
        elif name in LIST_FIELDS and isinstance(value, str):
            values[name] = [line.strip() for line in value.splitlines() if line.strip()]
    return values


def _target(picture: Any, weight: Any) -> Any:
    """Returns a picture that lies in its field with its weight, None for none."""
    return f"{picture['path']}:{weight}" if isinstance(picture, dict) and "path" in picture else picture or None


def nowhere(path: str) -> bool:
    """Tells that a picture is not on the page."""
    return False


def write(values: Mapping[str, Any], models: Sequence[str], here: Callable[[str], bool] = nowhere) -> list[Any]:
    """Returns what each component shows for the values of Settings fields; a model that is not here leaves the choice.

    Of `like` the first picture is shown; pictures are, if they are `here`.
    """
    named = {"like": next(iter(values["like"]), ""), "vary": values["vary"] or ""}
    for name, target in named.items():
        picture, weight = split_target(target)
        values = {**values, name: picture if here(picture) else None, WEIGHTS[name]: weight}
    skipped = () if values["model"] in models else ("model",)
    return [gr.skip() if name in skipped else _shown(name, values[name]) for name in SHOWN]


def _shown(name: str, value: Any) -> Any:
    if name in WEIGHTS:
        return value
    if name in LIST_FIELDS:
        return "\n".join(value)
    if name in AS_TEXT:
        return "" if value is None else str(value).removesuffix(".0")
    return "" if value is None else value


def preset_values(name: str) -> list[Any]:
    """Returns what each component shows once a preset is chosen: its own settings, and no other preset's."""
    presets = {preset.name: preset.settings for preset in list_presets()}
    touched = {field for settings in presets.values() for field in settings} - {"model"}
    chosen = presets.get(name, {})
    values = {**{field: DEFAULTS[field] for field in touched}, **chosen}
    return [_shown(field, values[field]) if field in values else gr.skip() for field in SHOWN]


def about(name: str) -> str:
    """Returns the one line of a preset, "" for none."""
    return next((preset.about for preset in list_presets() if preset.name == name), "")
