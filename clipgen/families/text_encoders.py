"""Text encoders as a family reads them: which layer, which summary, how many tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PromptEmbeds:
    """A prompt out of one text encoder: `tokens` [1, T, D], and its summary `pooled` [1, P], None if there is none."""

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor | None = None


@dataclass(frozen=True, eq=False)
class ImageEmbeds:
    """A picture as a denoiser is told it: `told` [1, ...], and in `words` where it is told words, else ""."""

    embeds: Tensor
    caption: str = ""


@dataclass(frozen=True)
class TextEncoder:
    """One text encoder of a model with its tokenizer, the tokens it is given, padding included, and how it is read."""

    tokenizer: Any
    model: Any
    max_length: int
    embed: Callable[[Any, Tensor], PromptEmbeds]


def last_layer(encoder: Any, ids: Tensor) -> PromptEmbeds:
    """Reads a CLIPTextModel as Stable Diffusion 1 and 2 and Flux do: normed last layer, and the end token of it."""
    output = encoder(ids)
    return PromptEmbeds(output.last_hidden_state, output.pooler_output)


def layer_before_last(encoder: Any, ids: Tensor) -> PromptEmbeds:
    """Reads a CLIPTextModel as SDXL does its first one."""
    return PromptEmbeds(encoder(ids, output_hidden_states=True).hidden_states[-2])


def layer_before_last_and_projection(encoder: Any, ids: Tensor) -> PromptEmbeds:
    """Reads a CLIPTextModelWithProjection as SDXL and SD3 do: the summary is CLIP's own text feature, not normed."""
    output = encoder(ids, output_hidden_states=True)
    return PromptEmbeds(output.hidden_states[-2], output.text_embeds)


def t5_layer(encoder: Any, ids: Tensor) -> PromptEmbeds:
    """Reads a T5EncoderModel as SD3 and Flux do: its last layer, the padding unmasked."""
    return PromptEmbeds(encoder(ids).last_hidden_state)


def clip_text_encoder(
    parts: Mapping[str, Any], number: str, read: Callable[[Any, Tensor], PromptEmbeds]
) -> TextEncoder:
    """Returns the CLIP tower of that number ("", "_2"), given all the tokens that its tokenizer allows."""
    tokenizer = parts[f"tokenizer{number}"]
    return TextEncoder(tokenizer, parts[f"text_encoder{number}"], tokenizer.model_max_length, read)


def t5_text_encoder(parts: Mapping[str, Any], number: str, length: int) -> TextEncoder:
    """Returns the T5 tower of that number, given at most `length` tokens."""
    tokenizer = parts[f"tokenizer{number}"]
    return TextEncoder(tokenizer, parts[f"text_encoder{number}"], min(length, tokenizer.model_max_length), t5_layer)
