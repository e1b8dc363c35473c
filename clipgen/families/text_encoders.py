"""Text encoders as the families use them: which hidden layer, which pooled output, how many tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PromptEmbeds:
    """One text encoder's output for a prompt: `prompt_embeds` [1, T, D] and, if it has one, a pooled output [1, P]."""

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor | None = None


@dataclass(frozen=True, eq=False)
class ImageEmbeds:
    """An image as conditioning: `embeds` [1, ...], and the caption they were made from, "" if there is none."""

    embeds: Tensor
    caption: str = ""


@dataclass(frozen=True)
class TextEncoder:
    """A text encoder of a model with its tokenizer.

    `max_length` is the number of tokens including start, end and padding; `embed` maps (model, input_ids [1, T],
    clip_skip) to PromptEmbeds.
    """

    tokenizer: Any
    model: Any
    max_length: int
    embed: Callable[[Any, Tensor, int], PromptEmbeds]


def last_layer(model: Any, input_ids: Tensor, clip_skip: int = 0) -> PromptEmbeds:
    """Embeds with a CLIPTextModel as Stable Diffusion 1 and 2 and Flux do: the last layer after its layer norm.

    `clip_skip` 1 takes the layer before the last, 2 the one before that, after the same norm, as diffusers does.
    """
    output = model(input_ids, output_hidden_states=clip_skip > 0)
    if clip_skip == 0:
        return PromptEmbeds(output.last_hidden_state, output.pooler_output)
    return PromptEmbeds(model.final_layer_norm(output.hidden_states[-1 - clip_skip]), output.pooler_output)


def penultimate_layer(model: Any, input_ids: Tensor, clip_skip: int = 0) -> PromptEmbeds:
    """Embeds with a CLIPTextModel as SDXL does with its first text encoder: the layer before the last.

    `clip_skip` counts from that layer, as in diffusers.
    """
    return PromptEmbeds(model(input_ids, output_hidden_states=True).hidden_states[-2 - clip_skip])


def penultimate_layer_and_projection(model: Any, input_ids: Tensor, clip_skip: int = 0) -> PromptEmbeds:
    """Embeds with a CLIPTextModelWithProjection as SDXL and SD3 do; pooled are the projected text_embeds."""
    output = model(input_ids, output_hidden_states=True)
    return PromptEmbeds(output.hidden_states[-2 - clip_skip], output.text_embeds)


def t5_layer(model: Any, input_ids: Tensor, clip_skip: int = 0) -> PromptEmbeds:
    """Embeds with a T5EncoderModel as SD3 and Flux do: the last layer, without an attention mask for the padding."""
    return PromptEmbeds(model(input_ids).last_hidden_state)


def clip_text_encoder(
    components: Mapping[str, Any], suffix: str, embed: Callable[[Any, Tensor, int], PromptEmbeds]
) -> TextEncoder:
    """Returns the CLIP text encoder with that suffix ("", "_2"); it reads as many tokens as its tokenizer allows."""
    tokenizer = components[f"tokenizer{suffix}"]
    return TextEncoder(tokenizer, components[f"text_encoder{suffix}"], tokenizer.model_max_length, embed)


def t5_text_encoder(components: Mapping[str, Any], suffix: str, max_length: int) -> TextEncoder:
    """Returns the T5 text encoder with that suffix; it reads at most `max_length` tokens."""
    tokenizer = components[f"tokenizer{suffix}"]
    max_length = min(max_length, tokenizer.model_max_length)
    return TextEncoder(tokenizer, components[f"text_encoder{suffix}"], max_length, t5_layer)
