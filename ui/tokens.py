"""The counter below the prompt: how much of what the model reads it takes up, and the words that are not read."""

from __future__ import annotations

from html import escape

from clipgen.errors import ClipgenError

from .paste import looks_pasted
from .workshop import Workshop


def tokens(workshop: Workshop, prompt: str | None) -> str:
    """Returns how much of what the model reads a prompt takes up, and the words that it will not read, struck out."""
    from clipgen.text import count_tokens, lost_words, plain_text

    pipe = workshop.pipeline
    if pipe is None or prompt is None or not prompt.strip() or looks_pasted(prompt):
        return ""
    try:
        text = plain_text(prompt, "a1111")
    except ClipgenError as error:
        return f'<span class="over">{escape(str(error))}</span>'
    tower = max(pipe.family.text_encoders, key=lambda tower: tower.max_length)
    count, limit = count_tokens(text, tower)
    if count <= limit:
        return f"<span>{count} of {limit} tokens</span>"
    lost = escape(lost_words(text, tower))
    return f'<span class="over">{count} of {limit} tokens · not read: <s>{lost}</s></span>'
