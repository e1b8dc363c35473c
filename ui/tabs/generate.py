"""The Generate tab: the form, the Generate button and the output panel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from ..form import cost, fields, values
from ..form.paste import looks_pasted, parse_settings
from ..form.sizes import model_sizes
from ..form.token_counter import token_counter
from ..html import output_panel
from ..image_info import ImageInfo
from ..server_config import ServerConfig
from ..worker import Worker
from .actions import build_actions
from .shared import STARTS_JOB, UNQUEUED, SharedWidgets, selected_index
from .updates import PanelUpdate, generate_updates

GENERATE = "Generate"  # the label of the button while no model is being loaded
MAX_IMAGES = 8  # of the slider


@dataclass(frozen=True)
class FormWidgets:
    """The left column.

    Args:
        fields: The component of each Settings field.
        token_counter: The line below the prompt.
        vary_row: Shown while an image is varied, with its name and a button that removes it.
        vary_source: Name of that image.
        vary_remove: That button.
        generate: Starts a job; hidden while one runs or the prompt holds settings.
        load: Loads the settings that were pasted into the prompt.
        stop: Stops the job.
        preset_description: The line below the preset.
        sizes: The sizes of the model.
        vary_section: Shown if the model supports variations.
        cost: What an image will cost.
        random_seed: Clears the seed.
    """

    fields: dict[str, Any]
    token_counter: gr.HTML
    vary_row: gr.Row
    vary_source: gr.HTML
    vary_remove: gr.Button
    generate: gr.Button
    load: gr.Button
    stop: gr.Button
    preset_description: gr.HTML
    sizes: gr.Radio
    vary_section: gr.Column
    cost: gr.HTML
    random_seed: gr.Button


@dataclass(frozen=True)
class OutputWidgets:
    """The right column: the panel, the thumbnails of the run, and as state its images and the one that is shown."""

    panel: gr.HTML
    thumbnails: gr.Gallery
    images: gr.State
    image: gr.State


def build_tab(worker: Worker, tabs: gr.Tabs) -> SharedWidgets:
    """Builds the tab with its handlers; returns the components that other tabs use."""
    with gr.Tab("Generate", id="generate", elem_id="tab-generate"), gr.Row(elem_id="generate-layout"):
        with gr.Column(scale=5, min_width=320, elem_id="form-column"):
            form = _build_form(worker.config)
        with gr.Column(scale=7, min_width=320, elem_id="output-column"):
            message = gr.HTML(elem_id="message")
            panel = gr.HTML(output_panel.empty(), elem_id="output")
            thumbnails = gr.Gallery(
                visible=False, columns=8, height=96, allow_preview=False, show_label=False, elem_id="thumbnails"
            )
            output = OutputWidgets(panel, thumbnails, images=gr.State([]), image=gr.State(None))
            shared = SharedWidgets(
                fields=[form.fields[name] for name in fields.FIELD_ORDER],
                message=message,
                generate_button=form.generate,
                loaded_model=gr.State(""),
                tabs=tabs,
                session_images=gr.State([]),
                models=worker.config.models,
            )
            build_actions("generate", shared, output.image, panel, worker)
    run = _handle_generate(worker, form, shared, output)
    _handle_form(worker, form, shared)
    _handle_variations(worker, form, shared)
    _handle_sizes(worker, form, shared, run)
    _handle_cost(worker, form, shared, run)
    return shared


def _build_form(config: ServerConfig) -> FormWidgets:
    """Builds the left column: the prompt with its buttons, and the sections."""
    components: dict[str, Any] = {}

    def add(names: Sequence[str]) -> None:
        for name in names:
            components[name] = fields.build_field(
                name, config.models, config.vaes, min(MAX_IMAGES, config.limits.images[1])
            )

    with gr.Group(elem_id="prompt-box"):
        add(fields.PROMPT)
        counter = gr.HTML(elem_id="token-counter")
        with gr.Row(visible=False, elem_id="vary-row") as vary_row:
            vary_source = gr.HTML(elem_id="vary-source")
            vary_remove = gr.Button("Remove", size="sm", elem_id="vary-remove", scale=0, min_width=96)
        with gr.Row(elem_id="prompt-buttons"):
            generate = gr.Button(GENERATE, variant="primary", elem_id="generate")
            load = gr.Button("Load settings", variant="primary", elem_id="load", visible=False)
            stop = gr.Button("Stop", variant="stop", elem_id="stop", visible=False)
    with gr.Accordion("Look", open=True, elem_classes="form-section"):
        add(fields.LOOK[:1])
        preset_description = gr.HTML(elem_id="preset-description")
        sizes = gr.Radio([], label="Size", visible=False, elem_id="sizes")
        add(fields.LOOK[1:])
        with gr.Column(visible=False, elem_id="vary-section") as vary_section:
            gr.HTML(fields.heading("vary"))
            add(fields.VARY)
    with gr.Accordion("Guidance", open=False, elem_classes="form-section"):
        add(fields.GUIDANCE[:2])
        cost_html = gr.HTML(elem_id="cost")
        gr.HTML(fields.heading("like"))
        add(fields.GUIDANCE[2:])
    with gr.Accordion("Expert", open=False, elem_classes="form-section"):
        for pair in (fields.EXPERT[:2], fields.EXPERT[2:4]):
            with gr.Row():
                add(pair)
        with gr.Row(elem_id="seed-row"):
            add(fields.EXPERT[4:5])
            random_seed = gr.Button("Random", size="sm", elem_id="random", scale=0, min_width=96)
        add(fields.EXPERT[5:])
        with gr.Accordion("All other settings", open=False, elem_classes="form-section"):
            add(fields.ADVANCED)
    return FormWidgets(
        components, counter, vary_row, vary_source, vary_remove, generate, load, stop, preset_description, sizes,
        vary_section, cost_html, random_seed,
    )  # fmt: skip


def _handle_generate(
    worker: Worker, form: FormWidgets, shared: SharedWidgets, output: OutputWidgets
) -> gr.events.Dependency:
    """Adds the handlers of Generate, Stop and the thumbnails; returns the event that is fired when a run ends."""

    def generate(request: gr.Request, session_images: list[ImageInfo], *raw: Any) -> Iterator[list[Any]]:
        for update in generate_updates(worker, raw, request.session_hash or ""):
            yield [*show_panel(update), *show_images(update, session_images)]

    def show_panel(update: PanelUpdate) -> list[Any]:
        return [
            gr.skip() if update.panel is None else update.panel,
            gr.skip() if update.message is None else output_panel.message(update.message, update.kind),
            gr.update(visible=not update.busy),
            gr.update(visible=update.busy),
        ]

    def show_images(update: PanelUpdate, session_images: list[ImageInfo]) -> list[Any]:
        images = update.images
        if images is None:
            return [gr.skip()] * 4
        thumbnails = gr.update(value=[image.path for image in images], visible=len(images) > 1)
        return [list(images), images[-1], thumbnails, [*session_images, *images]]

    def select(images: list[ImageInfo], event: gr.EventData) -> list[Any]:
        index = selected_index(images, event)
        if index is None:
            return [gr.skip()] * 2
        return [output_panel.finished(images[index], f"{index + 1} of {len(images)}"), images[index]]

    def stop(request: gr.Request) -> None:
        worker.cancel(request.session_hash or "")  # the run then ends and updates the page

    panel = [output.panel, shared.message, form.generate, form.stop]
    images = [output.images, output.image, output.thumbnails, shared.session_images]
    run = form.generate.click(generate, [shared.session_images, *shared.fields], [*panel, *images], **STARTS_JOB)
    run.then(lambda: worker.model_name if worker.pipeline else "", None, shared.loaded_model, **UNQUEUED)
    form.stop.click(stop, None, None, **UNQUEUED)
    output.thumbnails.select(select, output.images, [output.panel, output.image], **UNQUEUED)
    return run


def _handle_form(worker: Worker, form: FormWidgets, shared: SharedWidgets) -> None:
    """Adds the handlers of the prompt, the preset, the seed and the guidance image."""
    prompt, preset, seed, long_prompt = (form.fields[name] for name in ("prompt", "preset", "seed", "long_prompt"))

    def prompt_changed(text: str | None, long_prompt: str) -> list[Any]:
        pasted = looks_pasted(text)
        return [token_counter(worker, text, long_prompt), gr.update(visible=not pasted), gr.update(visible=pasted)]

    def load_pasted(text: str | None) -> list[Any]:
        settings, message = parse_settings(text)
        skip = [gr.skip()] * len(fields.FIELD_ORDER)
        return [*(skip if settings is None else values.write(settings, shared.models)), message]

    def describe_preset(name: str) -> str:
        return output_panel.message(values.preset_description(name), "hint")

    prompt.change(
        prompt_changed,
        [prompt, long_prompt],
        [form.token_counter, form.generate, form.load],
        js="async (text, long) => [await clipgen.debounce(text), long]",
        trigger_mode="always_last",
        **UNQUEUED,
    )
    for changed in (shared.loaded_model, long_prompt):
        changed.change(partial(token_counter, worker), [prompt, long_prompt], form.token_counter, **UNQUEUED)
    form.load.click(load_pasted, prompt, [*shared.fields, shared.message], **UNQUEUED)
    form.random_seed.click(lambda: "", None, seed, **UNQUEUED)
    preset.input(values.apply_preset, preset, shared.fields, **UNQUEUED)
    preset.change(describe_preset, preset, form.preset_description, **UNQUEUED)


def _handle_variations(worker: Worker, form: FormWidgets, shared: SharedWidgets) -> None:
    """Adds the handlers of the image fields: `like`, which needs a guidance method, and `vary`."""
    guidance, like, vary = (form.fields[name] for name in ("guidance", "like", "vary"))

    def turn_guidance_on(method: str) -> Any:
        return "clip" if method == "off" else gr.skip()

    def show_source(file: Any, weight: Any) -> list[Any]:
        return [gr.update(visible=file is not None), output_panel.variation_source(file, weight)]

    like.upload(turn_guidance_on, guidance, guidance, preprocess=False, **UNQUEUED)
    for name, weight in fields.WEIGHTS.items():
        file, slider = form.fields[name], form.fields[weight]
        file.change(lambda file: gr.update(visible=file is not None), file, slider, preprocess=False, **UNQUEUED)
    shared.loaded_model.change(
        lambda: gr.update(visible=worker.supports_variations), None, form.vary_section, **UNQUEUED
    )
    source = [vary, form.fields[fields.VARY_WEIGHT]]
    changes = [component.change for component in source]
    gr.on(changes, show_source, source, [form.vary_row, form.vary_source], preprocess=False, **UNQUEUED)
    form.vary_remove.click(lambda: None, None, vary, **UNQUEUED)


def _handle_sizes(worker: Worker, form: FormWidgets, shared: SharedWidgets, run: gr.events.Dependency) -> None:
    """Adds the handlers that keep the size buttons and the fields width, height and model consistent."""
    width, height, model = (form.fields[name] for name in ("width", "height", "model"))
    size_fields = [width, height, model]

    def update_buttons(width: str, height: str, model: str) -> Any:
        sizes = model_sizes(worker, model)
        selected = next((size.name for size in sizes if (width, height) in (size.fields, size.numbers)), None)
        return gr.update(choices=[(str(size), size.name) for size in sizes], value=selected, visible=bool(sizes))

    def select_size(name: str, model: str) -> tuple[str, str]:
        return next(size.fields for size in model_sizes(worker, model) if size.name == name)

    changes = [shared.loaded_model.change, *(field.change for field in size_fields)]
    gr.on(changes, update_buttons, size_fields, form.sizes, trigger_mode="always_last", **UNQUEUED)
    run.then(update_buttons, size_fields, form.sizes, **UNQUEUED)
    form.sizes.input(select_size, [form.sizes, model], [width, height], **UNQUEUED)


def _handle_cost(worker: Worker, form: FormWidgets, shared: SharedWidgets, run: gr.events.Dependency) -> None:
    """Adds the handler that updates the cost when a field that it depends on changes and when a run ends."""

    def update_cost(*raw: Any) -> str:
        return cost.cost_line(worker, raw)

    options: dict[str, Any] = {"inputs": shared.fields, "outputs": form.cost, "preprocess": False, **UNQUEUED}
    changes = [form.fields[name].change for name in cost.COST_FIELDS]
    gr.on([shared.loaded_model.change, *changes], update_cost, trigger_mode="always_last", **options)
    run.then(update_cost, **options)
