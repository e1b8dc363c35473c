"""The prompt syntax (weights, wildcards), and the encoding of prompts with the text encoders of a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from clipgen.errors import PromptError
from clipgen.families.prompt_tokens import Window, embed_windows, lost_text, split_windows, token_limit, tokenize
from clipgen.families.text_encoders import PromptEmbeds, TextEncoder
from clipgen.families.textual_inversion import Embedding
from clipgen.hashing import sha256_of
from clipgen.settings.checks import LOCAL, parse_number, printable
from clipgen.settings.settings import Note

MAX_WEIGHT = 2.0
ROUND, SQUARE = 1.1, 1 / 1.1  # the weights of (x) and [x]
OPENERS = {")": "(", "]": "["}
ESCAPED = r"\\[()\[\]{}_\\]"
LORA = re.compile(r"<lora:([^<>]*)>", re.IGNORECASE)
TOKEN = re.compile(
    rf"{LORA.pattern}|{ESCAPED}|:\s*[+-]?(?:\d+(?:\.\d*)?|\.\d+)\s*\)|[()\[\]]|[^\\()\[\]:<]+|.",
    re.DOTALL | re.IGNORECASE,
)
BREAK = re.compile(r"\s*\bBREAK\b\s*")
MAX_WINDOWS = 32
BRACES = re.compile(rf"{ESCAPED}|[{{}}|]|[^\\{{}}|]+|.", re.DOTALL)


def parse_prompt(prompt: str, syntax: str, field: str = "prompt") -> list[tuple[str, float]]:
    r"""Splits a prompt in A1111 syntax into (text, weight) pairs; neighbours with equal weights are joined.

    `(x)` has weight 1.1, `[x]` 1/1.1 and `(x:1.3)` 1.3; nested weights multiply. A backslash escapes
    `( ) [ ] { } _ \`, and an unmatched bracket is text. `<lora:name:weight>` is left out, see lora_tags. With syntax
    `plain` the whole prompt is one pair of weight 1.

    Raises:
        PromptError: A weight is outside 0 to 2, or a LoRA tag is wrong; the message gives the position.
    """
    if syntax == "plain":
        return [(prompt, 1.0)]
    lora_tags(prompt, syntax, field)
    runs = groupby(_weighted(list(TOKEN.finditer(prompt)), field), key=lambda piece: piece[1])
    return [("".join(text for text, _ in pieces), weight) for weight, pieces in runs]


def lora_tags(prompt: str, syntax: str, field: str = "prompt") -> list[str]:
    """Returns the LoRAs that `<lora:name:weight>` in a prompt names, each as `name:weight`; the default weight is 1.

    Raises PromptError for a tag without a name or with a wrong weight, and for any tag in a negative prompt.
    """
    tags = []
    for tag in () if syntax == "plain" else LORA.finditer(prompt):
        where = f"{field}, character {tag.start() + 1}: '{printable(tag[0])}'"
        if field != "prompt":
            raise PromptError(f"{where} belongs in the prompt; a LoRA changes the whole picture", field=field)
        name, colon, weight = (part.strip() for part in tag[1].partition(":"))
        if not name or re.search(r"[/\\]", name):
            raise PromptError(f"{where} must name a LoRA without its folder", field=field)
        low, high = LOCAL.lora
        number = parse_number(weight) if colon else 1.0
        if isinstance(number, str) or not low <= number <= high:
            raise PromptError(f"{where} must have a weight from {low:g} to {high:g}", field=field)
        tags.append(f"{name}:{number:g}")
    return tags


def plain_text(prompt: str, syntax: str, long_prompt: str = "cut") -> str:
    """Returns the prompt without weights, escapes and tags, and without BREAK if windows use it, as CLIP scores it."""
    return _join(_segments(parse_prompt(prompt, syntax), _has_breaks(syntax, long_prompt))).strip()


def resolve_wildcards(template: str, seed: int, syntax: str = "a1111") -> str:
    """Replaces each `{a|b|}` by one of its alternatives.

    Choices are numbered by their opening brace, from 0. Choice k takes the alternative with the index sha256("seed:k")
    modulo the number of alternatives. Braces without `|` and unmatched braces are text; they are escaped in the
    result, so that resolving it again changes nothing.
    """
    if syntax == "plain":
        return template
    pieces = [match[0] for match in BRACES.finditer(template)]
    return _resolve(pieces, _choices(pieces), seed)


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt as the text encoders of a model read it.

    `windows` = the windows of tokens for each text encoder, `text` = the prompt without weights, `lost` = the words
    that were cut off in every text encoder.
    """

    windows: tuple[list[Window], ...]
    text: str
    warnings: tuple[Note, ...] = ()
    lost: str = ""

    @property
    def count(self) -> int:
        """The number of windows of the text encoder that has most of them."""
        return max((len(windows) for windows in self.windows), default=1)


def tokenize_prompt(
    prompt: str,
    towers: Sequence[TextEncoder],
    *,
    syntax: str = "a1111",
    long_prompt: str = "cut",
    field: str = "prompt",
    embeddings: Sequence[Embedding] = (),
) -> TokenizedPrompt:
    """Tokenizes a prompt for each text encoder of a model.

    Args:
        prompt: the prompt in the given syntax.
        towers: the text encoders of the model. If there are none, the prompt is ignored with the warning
            `prompt-unread`.
        syntax: `a1111` or `plain`, see parse_prompt.
        long_prompt: `cut` truncates a prompt at the token limit of each text encoder, and adds the warning
            `prompt-cut` if words are cut off in every text encoder; `error` raises PromptError in that case; `chunk`
            splits the prompt into windows, and starts a new one at each word BREAK.
        field: the Settings field that warnings and errors name.
        embeddings: textual inversions; their names in the prompt stand for their vectors.

    Raises:
        PromptError: The syntax is wrong, the prompt is too long and `long_prompt` is `error`, or it has too many
            windows.
    """
    segments = _segments(parse_prompt(prompt, syntax, field), _has_breaks(syntax, long_prompt))
    text = _join(segments)
    if not towers:
        unread = Note("prompt-unread", field, f"This model reads no {field.replace('_', ' ')}.")
        return TokenizedPrompt((), text, (unread,) if text.strip() else ())
    lengths = [len(_join([segment])) + 1 for segment in segments]
    offsets = [sum(lengths[:k]) for k in range(len(segments))]
    tokens = [
        [tokenize(runs, tower, embeddings, k, offset) for runs, offset in zip(segments, offsets, strict=True)]
        for k, tower in enumerate(towers)
    ]
    if long_prompt == "chunk":
        return TokenizedPrompt(tuple(map(partial(_chunk, field, text), towers, tokens)), text)
    limits = [token_limit(tower) for tower in towers]
    cut = [lost_text(text, own, limit) for [own], limit in zip(tokens, limits, strict=True)]
    lost, limit = min(zip(cut, limits, strict=True), key=lambda pair: len(pair[0]))
    if lost and long_prompt == "error":
        raise PromptError(_too_long(lost, limit, field), field=field)
    notes = (Note("prompt-cut", field, _too_long(lost, limit, field)),) if lost else ()
    return TokenizedPrompt(tuple(tokens), text, notes, lost)


def embed_prompt(
    tokenized: TokenizedPrompt, towers: Sequence[TextEncoder], windows: int = 1, clip_skip: int = 0
) -> tuple[PromptEmbeds, ...]:
    """Returns the embeddings of a prompt by each text encoder of a model, in its dtype and on its device.

    Without weights the embeddings equal those of diffusers' encode_prompt, bit for bit. Weights scale the token
    embeddings of every text encoder; the pooled embeddings do not change. `windows` is the least number of windows,
    `clip_skip` the number of layers that are left out at the end of the text encoders.
    """
    count = max(windows, tokenized.count)
    return tuple(
        embed_windows(own, tower, count, clip_skip) for own, tower in zip(tokenized.windows, towers, strict=True)
    )


def lost_words(text: str, tower: TextEncoder) -> str:
    """Returns the words of a plain text that exceed the token limit of a text encoder, "" if there are none."""
    return lost_text(text, tokenize([(text, 1.0)], tower), token_limit(tower))


def count_tokens(text: str, tower: TextEncoder) -> tuple[int, int]:
    """Returns the number of tokens of a plain text, and the token limit of the text encoder."""
    return len(tokenize([(text, 1.0)], tower)), token_limit(tower)


def _has_breaks(syntax: str, long_prompt: str) -> bool:
    """Tells whether the word BREAK ends a window."""
    return syntax == "a1111" and long_prompt == "chunk"


def _segments(runs: list[tuple[str, float]], has_breaks: bool) -> list[list[tuple[str, float]]]:
    """Splits runs of text at each word BREAK; there is at least one segment, and only it may be empty."""
    if not has_breaks:
        return [runs]
    segments: list[list[tuple[str, float]]] = [[]]
    for text, weight in runs:
        first, *others = BREAK.split(text)
        segments[-1].append((first, weight))
        segments += [[(other, weight)] for other in others]
    return [segment for segment in segments if "".join(text for text, _ in segment).strip()] or [[]]


def _join(segments: list[list[tuple[str, float]]]) -> str:
    return " ".join("".join(text for text, _ in segment) for segment in segments)


def _chunk(field: str, text: str, tower: TextEncoder, segments: list[Window]) -> list[Window]:
    """Returns the windows of the tokens of all segments of a prompt; raises PromptError if they are too many."""
    limit = token_limit(tower)
    windows = [window for tokens in segments for window in split_windows(text, tokens, limit)]
    if len(windows) > MAX_WINDOWS:
        raise PromptError(f"{field} needs {len(windows)} windows of {limit} tokens, at most {MAX_WINDOWS}", field=field)
    return windows


def _too_long(lost: str, limit: int, field: str) -> str:
    return f"{field} is longer than the {limit} tokens the model reads; left out: '{' '.join(lost.split())}'"


def _weighted(tokens: list[re.Match[str]], field: str) -> Iterator[tuple[str, float]]:
    """Yields each piece of text with its weight, the product of the brackets around it."""
    factors, closers = _pairs([token[0] for token in tokens])
    weights = [1.0]
    for k, token in enumerate(tokens):
        if LORA.fullmatch(token[0]):
            continue
        if k in factors:
            weights.append(weights[-1] * factors[k])
        elif k in closers:
            weights.pop()
        else:
            weight = round(weights[-1], 6)
            if not 0 <= weight <= MAX_WEIGHT:
                where = f"{field}, character {token.start() + 1}"
                raise PromptError(
                    f"{where}: weight must be 0 to 2, got '{weight:g}'; \\( is a plain bracket", field=field
                )
            yield _unescaped(token[0]), weight


def _pairs(tokens: list[str]) -> tuple[dict[int, float], set[int]]:
    """Returns the weight of each matched opening bracket by its index, and the indices of the closing brackets."""
    factors: dict[int, float] = {}
    closers: set[int] = set()
    open_indices: list[int] = []
    open_kinds: list[str] = []
    for k, token in enumerate(tokens):
        opener = "" if token[0] == "\\" else OPENERS.get(token[-1], "")
        if token in ("(", "["):
            open_indices.append(k)
            open_kinds.append(token)
        elif opener in open_kinds:
            depth = len(open_kinds) - 1 - open_kinds[::-1].index(opener)  # unclosed brackets inside the pair are text
            factors[open_indices[depth]] = _factor(token)
            closers.add(k)
            del open_indices[depth:], open_kinds[depth:]
    return factors, closers


def _factor(closer: str) -> float:
    if closer.startswith(":"):
        return float(closer[1:-1])
    return ROUND if closer == ")" else SQUARE


def _unescaped(token: str) -> str:
    return token[1:] if re.fullmatch(ESCAPED, token) else token


def _choices(pieces: list[str]) -> dict[int, list[int]]:
    """Returns, by the index of each opening brace of a choice, the indices of its bars and of its closing brace."""
    choices: dict[int, list[int]] = {}
    unclosed: list[tuple[int, list[int]]] = []
    for k, piece in enumerate(pieces):
        if piece == "{":
            unclosed.append((k, []))
        elif piece == "|" and unclosed:
            unclosed[-1][1].append(k)
        elif piece == "}" and unclosed:
            opening, bars = unclosed.pop()
            if bars:
                choices[opening] = [*bars, k]
    return choices


def _resolve(pieces: list[str], choices: dict[int, list[int]], seed: int) -> str:
    number = {opening: k for k, opening in enumerate(sorted(choices))}
    out: list[str] = []
    ends: list[tuple[int, int]] = []  # (the end of the chosen alternative, the closing brace to continue after)
    k = 0
    while k < len(pieces):
        if ends and k == ends[-1][0]:
            k = ends.pop()[1]
        elif k in choices:
            choice = _choose(seed, number[k], len(choices[k]))
            starts = [k, *choices[k]]
            ends.append((starts[choice + 1], choices[k][-1]))
            k = starts[choice]
        else:
            out.append(f"\\{pieces[k]}" if pieces[k] in ("{", "}", "\\") else pieces[k])
        k += 1
    return "".join(out)


def _choose(seed: int, k: int, alternatives: int) -> int:
    return int(sha256_of(f"{seed}:{k}"), 16) % alternatives
