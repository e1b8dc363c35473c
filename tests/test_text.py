from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parity import Encoded, encode_prompt

from clipgen.errors import PromptError
from clipgen.families.prompt_tokens import split_windows, tokenize, weigh
from clipgen.families.text_encoders import TextEncoder, last_layer
from clipgen.families.textual_inversion import Embedding
from clipgen.settings.settings import Note
from clipgen.text import lora_tags, lost_words, parse_prompt, plain_text, resolve_wildcards

SENTENCE = "a red fox in the deep snow at night with an owl and two pizzas on table under blue moon watercolour"
WORDS = SENTENCE.split(" ")


@pytest.mark.parametrize(
    "prompt, runs",
    [
        ("", []),
        ("a fox", [("a fox", 1)]),
        ("a (fox) in [snow]", [("a ", 1), ("fox", 1.1), (" in ", 1), ("snow", 0.909091)]),
        ("((x))", [("x", 1.21)]),
        ("[[x]]", [("x", 0.826446)]),
        ("([x])", [("x", 1)]),
        ("(x:1.3)", [("x", 1.3)]),
        ("(x : .5 )", [("x ", 0.5)]),
        ("(x:0) (y:2)", [("x", 0), (" ", 1), ("y", 2)]),
        ("(a (b:1.2):1.3) c", [("a ", 1.3), ("b", 1.56), (" c", 1)]),
        ("((x:3):0.5)", [("x", 1.5)]),
        ("(a, b:1.5), c", [("a, b", 1.5), (", c", 1)]),
        ("(x:1.2.3)", [("x:1.2.3", 1.1)]),
        ("(x:1e1)", [("x:1e1", 1.1)]),
        ("(10:30 train)", [("10:30 train", 1.1)]),
        ("[x:0.5]", [("x:0.5", 0.909091)]),
        (":)", [(":)", 1)]),
        (r"\(x\) \[y\] \{z\} a\_b \\ \n", [(r"(x) [y] {z} a_b \ \n", 1)]),
        (r"(\(x:1.2\):1.3)", [("(x:1.2)", 1.3)]),
        ("(a", [("(a", 1)]),
        ("a)", [("a)", 1)]),
        ("(a:1.3", [("(a:1.3", 1)]),
        ("a:1.3)", [("a:1.3)", 1)]),
        ("((a)", [("(", 1), ("a", 1.1)]),
        ("(a))", [("a", 1.1), (")", 1)]),
        ("(a [b) c]", [("a [b", 1.1), (" c]", 1)]),
        ("() (:1.5)", [(" ", 1)]),
        ("{a|b} __c__", [("{a|b} __c__", 1)]),
        ("a AND b | c BREAK d", [("a AND b | c BREAK d", 1)]),
        ("狐 (雪:1.4)\nй", [("狐 ", 1), ("雪", 1.4), ("\nй", 1)]),
    ],
)
def test_weights(prompt: str, runs: list[tuple[str, float]]) -> None:
    assert parse_prompt(prompt, "a1111") == runs
    assert parse_prompt(prompt, "plain") == [(prompt, 1.0)]
    assert plain_text(prompt, "a1111") == "".join(text for text, _ in runs).strip()


@pytest.mark.parametrize(
    "prompt, line",
    [
        ("a (fox:2.1)", r"prompt, character 4: weight must be 0 to 2, got '2.1'; \( is a plain bracket"),
        ("((((((((x))))))))", r"prompt, character 9: weight must be 0 to 2, got '2.14359'; \( is a plain bracket"),
        ("(at 10:30)", r"prompt, character 2: weight must be 0 to 2, got '30'; \( is a plain bracket"),
        ("(x:-0.1)", r"prompt, character 2: weight must be 0 to 2, got '-0.1'; \( is a plain bracket"),
        (f"(x:{'9' * 400})", r"prompt, character 2: weight must be 0 to 2, got 'inf'; \( is a plain bracket"),
    ],
)
def test_invalid_syntax_is_an_error_with_its_position(prompt: str, line: str) -> None:
    with pytest.raises(PromptError) as caught:
        parse_prompt(prompt, "a1111")
    assert str(caught.value) == line
    assert (caught.value.field, caught.value.exit_code) == ("prompt", 2)
    assert parse_prompt(prompt, "plain") == [(prompt, 1.0)]
    with pytest.raises(PromptError, match="negative_prompt, character") as caught:
        parse_prompt(prompt, "a1111", "negative_prompt")
    assert caught.value.field == "negative_prompt"


def test_lora_tags_are_no_text() -> None:
    prompt = "a <lora:my snow:0.8>(fox <LORA:x> in:1.2) snow<lora:y: -1 >"
    assert lora_tags(prompt, "a1111") == ["my snow:0.8", "x:1", "y:-1"]
    assert parse_prompt(prompt, "a1111") == [("a ", 1.0), ("fox  in", 1.2), (" snow", 1.0)]
    assert (lora_tags(prompt, "plain"), parse_prompt(prompt, "plain")) == ([], [(prompt, 1.0)])
    assert parse_prompt("a < b <lora:x> c", "a1111") == [("a < b  c", 1.0)]


@pytest.mark.parametrize(
    "prompt, line",
    [
        ("a <lora:>", "prompt, character 3: '<lora:>' must name a LoRA without its folder"),
        ("<lora:../x:1>", "prompt, character 1: '<lora:../x:1>' must name a LoRA without its folder"),
        ("<lora:x:5>", "prompt, character 1: '<lora:x:5>' must have a weight from -4 to 4"),
        ("<lora:x:0.8:0.5>", "prompt, character 1: '<lora:x:0.8:0.5>' must have a weight from -4 to 4"),
        ("<lora:x:nan>", "prompt, character 1: '<lora:x:nan>' must have a weight from -4 to 4"),
    ],
)
def test_wrong_lora_tags_are_errors(prompt: str, line: str) -> None:
    with pytest.raises(PromptError) as caught:
        parse_prompt(prompt, "a1111")
    assert str(caught.value) == line


def test_a_lora_tag_in_a_negative_prompt_is_an_error() -> None:
    with pytest.raises(PromptError, match="negative_prompt, character 3: '<lora:x>' belongs in the prompt"):
        parse_prompt("a <lora:x>", "a1111", "negative_prompt")


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab ,:.0123()[]{}\\_<|"), max_size=40))
def test_any_prompt_parses_or_is_a_prompt_error(prompt: str) -> None:
    try:
        runs = parse_prompt(prompt, "a1111")
    except PromptError as error:
        assert "character" in str(error)  # noqa: PT017
        return
    assert all(text and 0 <= weight <= 2 for text, weight in runs)
    assert all(one[1] != other[1] for one, other in pairwise(runs))


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=40))
def test_an_escaped_prompt_is_literal_text(text: str) -> None:
    escaped = "".join(f"\\{c}" if c in "()[]{}_\\" else c for c in text)
    if "<lora:" not in text.lower():
        assert plain_text(escaped, "a1111") == text.strip()


def choice_index(seed: int, k: int, count: int) -> int:
    return int(hashlib.sha256(f"{seed}:{k}".encode()).hexdigest(), 16) % count


@pytest.mark.parametrize("seed", [0, 1, 7, 2**63 - 1])
def test_wildcards_follow_the_documented_rule(seed: int) -> None:
    colours, animals = ["red", "blue", ""], ["fox", "owl"]
    expected = f"a {colours[choice_index(seed, 0, 3)]} {animals[choice_index(seed, 1, 2)]}"
    assert resolve_wildcards("a {red|blue|} {fox|owl}", seed) == expected


def test_wildcards_have_fixed_results() -> None:
    expected = [resolve_wildcards("{fox|owl|cat} in {snow|rain}", seed) for seed in range(6)]
    assert expected == ["owl in snow", "owl in rain", "owl in rain", "cat in rain", "owl in snow", "cat in snow"]


def test_the_number_of_a_nested_choice_is_independent_of_the_outer_choice() -> None:
    for seed in range(20):
        inner = "bc"[choice_index(seed, 1, 2)]
        last = "ef"[choice_index(seed, 2, 2)]
        assert resolve_wildcards("{a|{b|c}|d} {e|f}", seed) == f"{['a', inner, 'd'][choice_index(seed, 0, 3)]} {last}"


@pytest.mark.parametrize(
    "template, resolved",
    [
        ("a fox", "a fox"),
        ("a | b", "a | b"),
        ("{x}", r"\{x\}"),
        ("}{", r"\}\{"),
        ("{a|b", r"\{a|b"),
        (r"\{a|b\}", r"\{a|b\}"),
        ("{(x:1.2)|(x:1.2)}", "(x:1.2)"),
        ("{{x}|{x}}", r"\{x\}"),
        ("{|}", ""),
        ("__name__", "__name__"),
    ],
)
def test_braces_without_alternatives_are_escaped(template: str, resolved: str) -> None:
    assert resolve_wildcards(template, 5) == resolved
    assert resolve_wildcards(template, 5, "plain") == template


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab{}|\\("), max_size=30), st.integers(0, 2**63 - 1))
def test_a_resolved_prompt_has_no_wildcards(template: str, seed: int) -> None:
    resolved = resolve_wildcards(template, seed)
    assert resolve_wildcards(resolved, seed + 1) == resolved


def word_tokenizer(length: int) -> Any:
    """Returns a CLIP tokenizer with one token per word of WORDS: bytes, merges, two special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    blank = CLIPTokenizer().backend_tokenizer
    backend = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    backend.normalizer, backend.pre_tokenizer = blank.normalizer, blank.pre_tokenizer
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2_000, initial_alphabet=letters, end_of_word_suffix="</w>", special_tokens=[], show_progress=False
    )
    backend.train_from_iterator([" ".join(WORDS)] * 20, trainer)
    merges = [tuple(merge) for merge in json.loads(backend.to_str())["model"]["merges"]]
    entries = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge) for merge in merges)]
    entries = [*dict.fromkeys(entries), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: k for k, word in enumerate(entries)}, merges=merges, model_max_length=length)


class Model:
    """A tokenizer, a text encoder, and a diffusers pipeline with both."""

    def __init__(self, tokenizer: Any) -> None:
        from diffusers import DDIMScheduler, StableDiffusionPipeline

        self.text_encoder = tiny.text_encoder(tokenizer)
        self.tower = TextEncoder(tokenizer, self.text_encoder, tokenizer.model_max_length, last_layer)
        self.pipeline = StableDiffusionPipeline(
            vae=tiny.vae_tiny(),
            text_encoder=self.text_encoder,
            tokenizer=tokenizer,
            unet=tiny.unet(8),
            scheduler=DDIMScheduler(**tiny.ZERO_TERMINAL),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    def encode(self, prompt: str, **options: Any) -> Encoded:
        return encode_prompt(prompt, [self.tower], **options)

    def embed(self, prompt: str, **options: Any) -> Any:
        """Returns the prompt embeddings [1, T, D]."""
        return self.encode(prompt, **options).embedded[0].prompt_embeds

    def theirs(self, prompt: str, negative_prompt: str = "") -> Any:
        return self.pipeline.encode_prompt(prompt, "cpu", 1, True, negative_prompt)


@pytest.fixture(scope="module")
def model() -> Model:
    """One token per word and 32 tokens, as in storybook."""
    return Model(word_tokenizer(32))


PROMPTS = [
    "",
    "a fox in snow",
    "A  Fox,\n in\tSNOW!  ",
    "日本 é e\u0301 ﬁ 🦊",
    " ".join(WORDS * 9),
    "x" * 2_000,
    "(not closed",
    r"plain ] text )",
]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("length", [32, 77])
def test_embeddings_without_weights_equal_those_of_diffusers(prompt: str, length: int) -> None:
    import torch

    model = Model(tiny.tokenizer(length))
    ours, (theirs, negative) = model.embed(prompt), model.theirs("x", prompt)
    assert ours.shape == (1, length, 32)
    assert torch.equal(ours, negative)
    assert torch.equal(ours, model.theirs(prompt)[0])
    assert not torch.equal(ours, theirs)
    assert not ours.requires_grad


def test_weights_do_not_change_the_tokens(model: Model) -> None:
    """The prompt is tokenized as one text, so `(fo:1.2)x` is the token fox."""
    import torch

    plain = model.embed("a red fox in snow")
    assert torch.equal(model.embed("a ([red]) (fo:1)x in snow"), plain)
    whole, part = (model.embed(f"a red {fox} in snow") for fox in ("(fox:1.2)", "(fo:1.2)x"))
    assert torch.equal(whole, part)
    assert not torch.equal(whole, plain)


def test_weights_scale_their_tokens_and_keep_the_mean(model: Model) -> None:
    import torch

    plain = model.embed("a red fox in snow")
    weighted = model.embed("a (red:1.5) [fox] in snow")
    weights = torch.ones(32)
    weights[2], weights[3] = 1.5, 0.909091  # after the start token and `a`
    by_hand = plain * weights[None, :, None]
    by_hand = by_hand + (plain.mean() - by_hand.mean())
    assert torch.allclose(weighted, by_hand, atol=1e-6)
    assert torch.allclose(weighted.mean(), plain.mean(), atol=1e-6)
    assert not torch.allclose(weighted, plain, atol=1e-3)


def test_weights_near_a_mean_of_zero_stay_finite_and_close() -> None:
    """After an untrained LayerNorm the mean of each token is about 0, so it must not be a divisor."""
    import torch

    plain = torch.nn.functional.layer_norm(torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(0)), (16,))
    weighted = weigh(plain.half(), [1, 1.3, 0, 1, 1, 1, 1, 1])
    assert weighted.dtype == torch.float16
    assert torch.allclose(weighted[:, 3:].float(), plain[:, 3:], atol=2e-3)
    assert torch.allclose(weighted[:, 1].float(), 1.3 * plain[:, 1], atol=3e-3)


def test_weights_of_truncated_words_and_of_unusual_characters(model: Model) -> None:
    import torch

    long = " ".join(WORDS * 3)
    assert torch.equal(model.embed(f"{long} (fox:1.9)"), model.embed(long))
    for prompt in ("(日本 é:1.5) 🦊", "  (a   fox:1.2)  ", "(e\u0301:1.3)(ﬁ:0.3)", "(a:0)"):
        assert torch.isfinite(model.embed(prompt)).all()


@pytest.mark.parametrize("extra", [0, 1, 5, 40])
def test_words_over_the_token_limit_are_in_the_warning(model: Model, extra: int) -> None:
    words = (WORDS * 4)[: 30 + extra]
    encoded = model.encode(" ".join(words))
    lost = " ".join(words[30:])
    assert encoded.lost == lost
    line = f"prompt is longer than the 30 tokens the model reads; left out: '{lost}'"
    assert encoded.warnings == ((Note("prompt-cut", "prompt", line),) if extra else ())


def test_truncated_words_do_not_change_the_embeddings(model: Model) -> None:
    import torch

    head, lost = " ".join((WORDS * 2)[:30]), "pizzas, two (owl:1.4)"
    encoded = model.encode(f"{head} {lost}", field="negative_prompt")
    assert torch.equal(encoded.embedded[0].prompt_embeds, model.embed(head))
    assert encoded.lost == "pizzas, two owl"
    assert encoded.warnings[0].field == "negative_prompt"


def test_a_partly_truncated_word_is_reported_as_a_whole() -> None:
    letters = TextEncoder(tiny.tokenizer(12), None, 12, last_layer)  # one token per letter, so ten letters fit
    assert lost_words("a fox in snow", letters) == ""
    assert lost_words("a fox in snows", letters) == "snows"
    assert lost_words("a fox in a snows", letters) == "snows"
    assert lost_words("a fox, in sn,\n  a Fox", letters) == "a Fox"
    assert lost_words("incomprehensible", letters) == "incomprehensible"
    assert lost_words("日本日本 fox", letters) == "日本日本 fox"


def test_a_long_prompt_can_be_an_error(model: Model) -> None:
    prompt = " ".join((WORDS * 2)[:31])
    with pytest.raises(PromptError) as caught:
        model.encode(prompt, long_prompt="error")
    word = (WORDS * 2)[30]
    assert str(caught.value) == f"prompt is longer than the 30 tokens the model reads; left out: '{word}'"
    model.encode("a fox in snow", long_prompt="error")


def test_the_text_encoder_with_the_highest_token_limit_decides() -> None:
    words = tiny.tokenizer(12)
    towers = [TextEncoder(words, tiny.text_encoder(words), length, last_layer) for length in (6, 12)]
    short, long = encode_prompt("a fox in", towers), encode_prompt("a fox in a snow", towers)
    assert [each.prompt_embeds.shape for each in short.embedded] == [(1, 6, 32), (1, 12, 32)]
    assert (short.lost, short.warnings) == ("", ())
    assert long.lost == "snow"
    assert "10 tokens" in long.warnings[0].message
    encode_prompt("a fox in", towers, long_prompt="error")
    with pytest.raises(PromptError, match="longer than the 10 tokens"):
        encode_prompt("a fox in a snow", towers, long_prompt="error")


def test_plain_syntax_has_no_special_characters(model: Model) -> None:
    import torch

    text = "(a fox:1.3) {x|y} <lora:z:1>"
    assert torch.equal(model.embed(text, syntax="plain"), model.theirs(text)[0])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(blacklist_categories=("Cs",)), max_size=60), weight=st.floats(0, 2))
def test_any_text_has_the_embeddings_of_diffusers(model: Model, text: str, weight: float) -> None:
    import torch

    assert torch.equal(model.embed(text, syntax="plain"), model.theirs(text)[0])
    escaped = "".join(f"\\{c}" if c in "()[]{}_\\" else c for c in text)
    assert torch.isfinite(model.embed(f"a ({escaped}:{weight:.6f}) fox")).all()


def windows_of(prompt: str, limit: int = 10) -> list[str]:
    """Returns the text of each window of a model with one token per letter."""
    letters = TextEncoder(tiny.tokenizer(limit + 2), None, limit + 2, last_layer)
    windows = split_windows(prompt, tokenize([(prompt, 1.0)], letters), limit)
    starts = [window[0].start for window in windows] + [len(prompt)]
    assert all(len(window) <= limit for window in windows)
    return [prompt[start:end] for start, end in pairwise(starts)]


@pytest.mark.parametrize(
    "prompt, windows",
    [
        ("a fox", ["a fox"]),
        ("a fox in snow", ["a fox in snow"]),
        ("a fox in snow at", ["a fox in snow ", "at"]),
        ("a fox, in snow", ["a fox, ", "in snow"]),
        ("incomprehensible", ["incomprehe", "nsible"]),
        ("abcdefghij, k", ["abcdefghij", ", k"]),
    ],
)
def test_windows_end_after_a_comma_or_before_a_word(prompt: str, windows: list[str]) -> None:
    assert windows_of(prompt) == windows


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_short_prompt_in_windows_is_encoded_as_before(prompt: str) -> None:
    import torch

    model = Model(tiny.tokenizer(77))
    if not model.encode(prompt).lost:
        assert torch.equal(model.embed(prompt, long_prompt="chunk"), model.embed(prompt))


def test_each_window_is_encoded_alone_with_its_weights(model: Model) -> None:
    import torch

    one, two = " ".join((WORDS * 2)[:30]), "a (red:1.3) fox"
    encoded = model.encode(f"{one} {two}", long_prompt="chunk", windows=3)
    parts = [model.embed(text) for text in (one, two, "")]
    assert torch.equal(encoded.embedded[0].prompt_embeds, torch.cat(parts, dim=1))
    assert (encoded.lost, encoded.warnings) == ("", ())
    assert encoded.embedded[0].prompt_embeds.shape == (1, 96, 32)


def test_break_starts_a_window_and_is_no_text(model: Model) -> None:
    import torch

    prompt = "a fox BREAK\n(snow BREAK red:1.2)BREAK BREAK owl"
    encoded = model.encode(prompt, long_prompt="chunk")
    assert encoded.text == "a fox snow red owl" == plain_text(prompt, "a1111", "chunk")
    parts = [model.embed(text) for text in ("a fox", "(snow:1.2)", "(red:1.2)", "owl")]
    assert torch.equal(encoded.embedded[0].prompt_embeds, torch.cat(parts, dim=1))
    assert "BREAK" in plain_text(prompt, "a1111")
    assert "BREAK" in plain_text(prompt, "plain", "chunk")
    assert torch.equal(model.embed("BREAK", long_prompt="chunk"), model.embed(""))


def test_too_many_windows_are_an_error(model: Model) -> None:
    with pytest.raises(PromptError, match="prompt needs 33 windows of 30 tokens, at most 32"):
        model.encode(" BREAK ".join(["fox"] * 33), long_prompt="chunk")


@pytest.mark.parametrize("clip_skip", [0, 1, 2])
def test_clip_skip_is_that_of_diffusers(model: Model, clip_skip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    # diffusers 0.42 looks for a submodule that the text encoder has no longer.
    monkeypatch.setitem(vars(model.text_encoder), "text_model", model.text_encoder)
    theirs, _ = model.pipeline.encode_prompt("a red fox", "cpu", 1, False, clip_skip=clip_skip)
    assert torch.equal(model.embed("a red fox", clip_skip=clip_skip), theirs)
    assert torch.equal(theirs, model.embed("a red fox")) is (clip_skip == 0)


def test_an_embedding_is_that_of_diffusers_and_weights_apply_to_it() -> None:
    import torch

    model = Model(word_tokenizer(32))
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    embedding = Embedding(Path("x"), "", ("my-style", "<token>"), (vectors,))
    ours = model.embed("a red My-Style, fox", embeddings=[embedding])
    weighted = model.embed("a red (my-style:1.3), fox", embeddings=[embedding])
    assert torch.equal(ours, model.embed("a red <token>, fox", embeddings=[embedding]))
    assert not torch.equal(ours, model.embed("a red my-styles, fox", embeddings=[embedding]))
    assert torch.equal(model.embed("a red fox", embeddings=[embedding]), model.embed("a red fox"))
    model.pipeline.load_textual_inversion({"<token>": vectors}, token="<token>")
    theirs = model.pipeline.encode_prompt("a red <token>, fox", "cpu", 1, False)[0]
    assert torch.allclose(ours, theirs, atol=1e-6)
    expected = [1.0, 1.0, 1.0, 1.3, 1.3, 1.3, *[1.0] * 26]  # start, a, red, three vectors
    assert torch.allclose(weighted, weigh(ours, expected), atol=1e-6)
