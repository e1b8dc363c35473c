"""The tokens of a prompt for one text encoder: their weights, learned embeddings, and windows of one context each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from clipgen.families.text_encoders import PromptEmbeds, TextEncoder
from clipgen.families.textual_inversion import Embedding

if TYPE_CHECKING:
    from torch import Tensor

PLACEHOLDER = 0  # the id under an embedding's vector; not the end token, whose position gives the pooled output
COMMA_TOKENS = 20  # A1111: a window ends after the last comma among its last 20 tokens
Runs = Sequence[tuple[str, float]]  # pieces of a text with their weights


@dataclass(frozen=True, eq=False)
class PromptToken:
    """One token: the index of its first character in the text, its weight, and a vector [D] that replaces its own."""

    id: int
    start: int
    weight: float
    vector: Tensor | None = None


Window = list[PromptToken]  # the tokens of one context, without start, end and padding


def token_limit(encoder: TextEncoder) -> int:
    """Returns the number of tokens of a prompt that a text encoder reads, after the prefix of its chat template."""
    return encoder.max_length - int(encoder.tokenizer.num_special_tokens_to_add()) - len(_ids(encoder, encoder.prefix))


def _ids(encoder: TextEncoder, text: str) -> list[int]:
    return list(encoder.tokenizer(text, add_special_tokens=False).input_ids) if text else []


def tokenize(
    runs: Runs, encoder: TextEncoder, embeddings: Sequence[Embedding] = (), index: int = 0, offset: int = 0
) -> Window:
    """Returns all tokens of a text; each name of an embedding becomes its vectors for text encoder number `index`.

    `offset` is added to the start of each token.
    """
    text = "".join(run for run, _ in runs)
    weights = [weight for run, weight in runs for _ in run]
    tokens: Window = []
    for start, end, embedding in _pieces(text, embeddings):
        if embedding is not None:
            vectors = embedding.vectors[index]
            tokens += [PromptToken(PLACEHOLDER, offset + start, weights[start], vector) for vector in vectors]
            continue
        encoding = encoder.tokenizer(
            text[start:end], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        for token, (first, last) in zip(encoding.input_ids, encoding.offset_mapping, strict=True):
            weight = weights[start + first] if first < last else 1.0
            tokens.append(PromptToken(token, offset + start + first, weight))
    return tokens


def _pieces(text: str, embeddings: Sequence[Embedding]) -> Iterator[tuple[int, int, Embedding | None]]:
    """Yields (start, end, embedding) of each name of an embedding, as a whole word, and of the text between them."""
    by_name = {name.lower(): embedding for embedding in embeddings for name in embedding.names}
    names = "|".join(re.escape(name) for name in sorted(by_name, key=len, reverse=True))
    position = 0
    for match in re.finditer(rf"(?<!\w)(?:{names})(?!\w)", text, re.IGNORECASE) if by_name else ():
        if position < match.start():
            yield position, match.start(), None
        yield match.start(), match.end(), by_name[match[0].lower()]
        position = match.end()
    if position < len(text) or not text:
        yield position, len(text), None


def lost_text(text: str, tokens: Window, limit: int) -> str:
    """Returns the words of a text that exceed the token limit, "" if there are none.

    A word that fits only in part is included.
    """
    return text[_word_start(text, tokens[limit].start) :].strip(" \t\n,") if len(tokens) > limit else ""


def _word_start(text: str, position: int) -> int:
    """Returns the index of the first character of the word at a position."""
    while text[max(position - 1, 0) : position + 1].isalnum() and position > 0:
        position -= 1
    return position


def split_windows(text: str, tokens: Window, limit: int) -> list[Window]:
    """Splits tokens into windows of at most `limit`; a text without tokens is one empty window.

    A window ends after the last comma among its last 20 tokens, as in A1111; without one it ends before the word that
    does not fit.
    """
    windows: list[Window] = []
    start = 0
    while len(tokens) - start > limit:
        end = _window_end(text, tokens, start, start + limit)
        windows.append(tokens[start:end])
        start = end
    return [*windows, tokens[start:]]


def _window_end(text: str, tokens: Window, start: int, end: int) -> int:
    for k in range(end - 1, max(start, end - COMMA_TOKENS) - 1, -1):
        if text[tokens[k].start : tokens[k].start + 1] == ",":
            return k + 1
    word = _word_start(text, tokens[end].start)
    first = next((k for k in range(start, end) if tokens[k].start >= word), end)
    return first if first > start else end  # a word that is longer than a window is split


def embed_windows(windows: Sequence[Window], encoder: TextEncoder, count: int = 1, clip_skip: int = 0) -> PromptEmbeds:
    """Returns the prompt_embeds [1, windows x T, D] of windows, padded with empty windows to at least `count`.

    Each window is encoded alone. The pooled output is that of the first one.
    """
    import torch

    empty: Window = []
    padded = [*windows, *[empty] * (count - len(windows))]
    embeds = [embed_window(window, encoder, clip_skip) for window in padded]
    if len(embeds) == 1:
        return embeds[0]
    return replace(embeds[0], prompt_embeds=torch.cat([each.prompt_embeds for each in embeds], dim=1))


def embed_window(window: Window, encoder: TextEncoder, clip_skip: int = 0) -> PromptEmbeds:
    """Returns the embeddings of one window by a text encoder, with the weights applied; extra tokens are cut off."""
    import torch

    window = window[: token_limit(encoder)]
    *start_ids, end_id = encoder.tokenizer("").input_ids or [None]
    before = [*start_ids, *_ids(encoder, encoder.prefix)]
    after = [*_ids(encoder, encoder.suffix), *([] if end_id is None else [end_id])]
    # A long prompt cuts the end of the chat template off, as in diffusers.
    ids = [*before, *(token.id for token in window), *after][: encoder.max_length]
    padding = encoder.max_length - len(ids) if encoder.pads else 0
    left = padding if encoder.tokenizer.padding_side == "left" else 0
    pad_ids = [encoder.tokenizer.pad_token_id]
    input_ids = torch.tensor([pad_ids * left + ids + pad_ids * (padding - left)], device=encoder.device)
    first = left + len(before)
    vectors = {first + k: token.vector for k, token in enumerate(window) if token.vector is not None}
    with torch.no_grad(), _replaced_vectors(encoder.model, vectors):
        plain = encoder.embed(encoder.model, input_ids, clip_skip)
    if all(token.weight == 1.0 for token in window):
        return plain
    weights = [1.0] * input_ids.shape[1]
    weights[first : first + len(window)] = [token.weight for token in window]
    # Some text encoders leave out the embeddings of the first tokens, a part of their template.
    return replace(plain, prompt_embeds=weigh(plain.prompt_embeds, weights[-plain.prompt_embeds.shape[1] :]))


@contextmanager
def _replaced_vectors(model: Any, vectors: dict[int, Tensor]) -> Iterator[None]:
    """Replaces the input embeddings [1, T, D] at some positions while the context is open."""

    def replace_vectors(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        output = output.clone()
        for position, vector in vectors.items():
            output[:, position] = vector.to(output)
        return output

    if not vectors:
        yield
        return
    handle = model.get_input_embeddings().register_forward_hook(replace_vectors)
    try:
        yield
    finally:
        handle.remove()


def weigh(prompt_embeds: Tensor, weights: list[float]) -> Tensor:
    """Scales prompt_embeds [1, T, D] by one weight per token, then restores their mean by a shift.

    A1111 restores the mean by a factor. A factor diverges if the mean is near 0, as after a LayerNorm; a shift does
    not.
    """
    plain = prompt_embeds.float()
    scaled = plain * plain.new_tensor(weights)[:, None]
    return (scaled + (plain.mean() - scaled.mean())).to(prompt_embeds.dtype)
