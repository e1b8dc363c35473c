"""Text encoders as the families use them: which hidden layer, which pooled output, how many tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PromptEmbeds:
    """One text encoder's output for a prompt: `prompt_embeds` [1, T, D] and, if it has one, a pooled output [1, P].

    `attention_mask` [1, T] is 1 for the tokens of the prompt and 0 for padding; None if the denoiser needs no mask.
    """

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor | None = None
    attention_mask: Tensor | None = None


@dataclass(frozen=True, eq=False)
class ImageEmbeds:
    """An image as conditioning: `embeds` [1, ...], and the caption they were made from, "" if there is none."""

    embeds: Tensor
    caption: str = ""


@dataclass(frozen=True)
class TextEncoder:
    """A text encoder of a model with its tokenizer.

    `max_length` is the number of tokens including start, end, padding and template; `embed` maps (model, input_ids
    [1, T], clip_skip) to PromptEmbeds. `prefix` and `suffix` are the chat template around a prompt. With `pads` every
    prompt has `max_length` tokens.
    """

    tokenizer: Any
    model: Any
    max_length: int
    embed: Callable[[Any, Tensor, int], PromptEmbeds]
    prefix: str = ""
    suffix: str = ""
    pads: bool = True

    @property
    def device(self) -> str:
        """The device for input_ids; sequential offloading leaves the weights on `meta` and moves the inputs itself."""
        device = str(self.model.device)
        return "cpu" if device == "meta" else device


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


def t5_layer_masked(pad_token_id: int, model: Any, input_ids: Tensor, clip_skip: int = 0) -> PromptEmbeds:
    """Embeds with a T5EncoderModel as Chroma does: the last layer, with an attention mask for the padding."""
    mask = (input_ids != pad_token_id).to(model.dtype)
    return PromptEmbeds(model(input_ids, attention_mask=mask).last_hidden_state, attention_mask=mask)


def causal_layer(layer: int, dropped: int, model: Any, input_ids: Tensor, clip_skip: int = 0) -> PromptEmbeds:
    """Embeds with a causal language model as Z-Image and Qwen-Image do: one hidden layer, and no padding.

    The embeddings of the first `dropped` tokens are left out.
    """
    mask = input_ids.new_ones(input_ids.shape)
    output = model.base_model(input_ids=input_ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
    return PromptEmbeds(output.hidden_states[layer][:, dropped:], attention_mask=mask[:, dropped:])


def causal_layers(
    layers: Sequence[int], pad_token_id: int, model: Any, input_ids: Tensor, clip_skip: int = 0
) -> PromptEmbeds:
    """Embeds with a causal language model as FLUX.2 [klein] does: several hidden layers, joined along the features."""
    import torch

    mask = (input_ids != pad_token_id).long()
    output = model.base_model(input_ids=input_ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
    return PromptEmbeds(torch.cat([output.hidden_states[layer] for layer in layers], dim=-1))


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
