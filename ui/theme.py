"""The Gradio theme, light and dark; its fonts are bundled with Gradio, so nothing is loaded from other hosts."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import gradio as gr
from gradio.themes.utils.fonts import LocalFont

ORANGE = gr.themes.Color(
    "#fdf3ec",
    "#fae3d3",
    "#f5c5a6",
    "#efa377",
    "#e87f4c",
    "#d9602b",
    "#b8471a",
    "#933716",
    "#742d15",
    "#5c2512",
    "#3a160a",
)
SAND = gr.themes.Color(
    "#fffdf8",
    "#f7f1e6",
    "#eae0cf",
    "#d8cbb4",
    "#b3a48c",
    "#8a7b66",
    "#6b5e4c",
    "#4c4235",
    "#2e2921",
    "#1d1a16",
    "#12110f",
)


def theme() -> gr.themes.Base:
    """Returns the theme; what a theme cannot set is in page.css."""
    base = gr.themes.Base(
        primary_hue=ORANGE,
        secondary_hue=ORANGE,
        neutral_hue=SAND,
        font=[LocalFont("Source Sans Pro", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"],
        font_mono=[LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"],
        radius_size=gr.themes.sizes.radius_lg,
        text_size=gr.themes.sizes.text_md,
    )
    return base.set(**_colours())


def _colours() -> dict[str, Any]:
    """Returns the theme's variables: each colour for light mode, and with the suffix `_dark` for dark mode."""
    light_and_dark = {
        "body_background_fill": ("#f6f0e4", "#11131b"),
        "body_text_color": ("#2b231a", "#ece6da"),
        "body_text_color_subdued": ("#6a5d4b", "#a8a294"),
        "background_fill_primary": ("#fffdf8", "#1a1d28"),
        "background_fill_secondary": ("#faf5ea", "#161923"),
        "border_color_primary": ("#e2d7c3", "#2d3142"),
        "border_color_accent": ("#b8471a", "#ff9e66"),
        "block_background_fill": ("transparent", "transparent"),
        "block_border_color": ("#e2d7c3", "#2d3142"),
        "block_label_text_color": ("#2b231a", "#ece6da"),
        "block_title_text_color": ("#2b231a", "#ece6da"),
        "block_info_text_color": ("#6a5d4b", "#a8a294"),
        "input_background_fill": ("#fffdf8", "#1a1d28"),
        "input_background_fill_focus": ("#fffdf8", "#1a1d28"),
        "input_border_color": ("#d8cbb4", "#363b4f"),
        "input_border_color_focus": ("#b8471a", "#ff9e66"),
        "input_placeholder_color": ("#7a6c58", "#8d8877"),
        "button_primary_background_fill": ("#b8471a", "#ff9e66"),
        "button_primary_background_fill_hover": ("#9d3a13", "#ffb285"),
        "button_primary_text_color": ("#fffdf8", "#20110a"),
        "button_secondary_background_fill": ("#fffdf8", "#232736"),
        "button_secondary_background_fill_hover": ("#f1e7d5", "#2c3144"),
        "button_secondary_border_color": ("#d8cbb4", "#363b4f"),
        "button_secondary_text_color": ("#2b231a", "#ece6da"),
        "button_cancel_background_fill": ("#2b231a", "#ece6da"),
        "button_cancel_background_fill_hover": ("#4c4235", "#ffffff"),
        "button_cancel_text_color": ("#fffdf8", "#11131b"),
        "slider_color": ("#b8471a", "#ff9e66"),
        "checkbox_background_color_selected": ("#b8471a", "#ff9e66"),
        "checkbox_label_background_fill_selected": ("#fae3d3", "#3a2a22"),
        "checkbox_label_background_fill": ("#fffdf8", "#232736"),
        "checkbox_label_text_color_selected": ("#2b231a", "#ece6da"),
        "link_text_color": ("#9d3a13", "#ff9e66"),
        "link_text_color_hover": ("#742d15", "#ffb285"),
        "panel_background_fill": ("#faf5ea", "#161923"),
        "table_even_background_fill": ("#fffdf8", "#1a1d28"),
        "table_odd_background_fill": ("#faf5ea", "#161923"),
    }
    values: dict[str, Any] = {"block_border_width": "0px", "block_shadow": "none", "input_shadow": "none"}
    values |= {"input_border_width": "1px", "input_shadow_focus": "none", "block_info_text_size": "*text_md"}
    for name, (light, dark) in light_and_dark.items():
        values |= {name: light, f"{name}_dark": dark}
    return values


def css() -> str:
    """Returns the style sheet of the page, with the font of its headings, which is bundled with Gradio."""
    heading_font = LocalFont("Quicksand", weights=(400, 700)).stylesheet()["css"]
    return f"{heading_font}\n{_read('page.css')}"


def head() -> str:
    """Returns the script of the page for its HTML head, so that dark mode is set before the first paint."""
    return f"<script>\n{_read('page.js')}\n</script>"


def _read(name: str) -> str:
    return (files("clipgen.ui") / name).read_text("utf-8")
