"""Prompts in the words that a model knows: syntax and weights stay, notes are given, other models are not touched."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clipgen import Pipeline, Result, Settings
from clipgen.pipeline.rewording import _edited, _with_weight, reword, word_notes
from clipgen.text import parse_prompt
from clipgen.world.vocabulary import VOCABULARIES, Edit

WORDS = VOCABULARIES["storybook"]
README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture(scope="module")
def pipeline(tiny_v: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A tiny model with a CLIP that declares the vocabulary of storybook."""
    folder = tmp_path_factory.mktemp("models") / "model"
    shutil.copytree(tiny_v, folder)
    declared = json.loads((folder / "clipgen.json").read_text()) | {"vocabulary": "storybook"}
    (folder / "clipgen.json").write_text(json.dumps(declared))
    return Pipeline.from_pretrained(str(folder))


def draw(pipeline: Pipeline, prompt: str, **fields: object) -> Result:
    return pipeline.run(Settings.from_dict({"prompt": prompt, "seed": 3, "steps": 2, **fields}))[0]


def messages(result: Result, code: str) -> list[tuple[str | None, str]]:
    return [(note.field, note.message) for note in result.warnings if note.code == code]


@pytest.mark.parametrize(
    "prompt, syntax, reworded",
    [
        ("a (kitten:1.3) in snow", "a1111", "a (cat:1.3) in snow"),
        ("a [lorry], (a (burger):1.5)", "a1111", "a (truck:0.909091), (a :1.5)(hamburger:1.65)"),
        (r"a kitten \(small\), neon", "a1111", r"a cat \(small\), neon"),
        ("a (kitten:1.3)", "plain", "a (cat:1.3)"),
        ("a (fir:1.2) tree", "a1111", "a (pine tree:1.2)"),
        ("a (fox:1.3) in [snow]", "a1111", "a (fox:1.3) in [snow]"),
    ],
)
def test_weights_stay(prompt: str, syntax: str, reworded: str) -> None:
    settings = reword(Settings(prompt=prompt, prompt_syntax=syntax), WORDS)  # type: ignore[arg-type]
    assert settings.prompt == reworded


def test_settings_in_known_words_are_the_same_object() -> None:
    settings = Settings(prompt="a (red:1.2) fox", negative_prompt="a cat", guide=("snow:-0.5",))
    assert reword(settings, WORDS) is settings
    assert word_notes(settings, WORDS, "storybook") == []
    other = Settings(prompt="a dachshund and a kitten")
    assert reword(other, None) is other
    assert word_notes(other, None, "org/name") == []


def test_negative_prompts_and_guides_are_reworded() -> None:
    settings = Settings(
        prompt="a fox", negative_prompt="a (puppy:1.1)", guide=("a lorry:-0.5", "snow"), guidance="clip"
    )
    changed = reword(settings, WORDS)
    assert (changed.negative_prompt, changed.guide) == ("a (dog:1.1)", ("a truck:-0.5", "snow:1"))
    assert [(note.field, note.message) for note in word_notes(settings, WORDS, "storybook")] == [
        ("negative_prompt", "'puppy' is read as 'dog'"),
        ("guide", "'lorry' is read as 'truck'"),
    ]
    assert len(word_notes(settings.replace(guidance="off"), WORDS, "storybook")) == 1


def test_break_between_windows_is_no_word() -> None:
    settings = Settings(prompt="a puppy BREAK a lorry", long_prompt="chunk")
    assert reword(settings, WORDS).prompt == "a dog BREAK a truck"
    assert not any("BREAK" in note.message for note in word_notes(settings, WORDS, "storybook"))


@given(st.lists(st.tuples(st.text(max_size=8), st.sampled_from([0.5, 1.0, 1.3])), min_size=1, max_size=4))
def test_runs_survive_the_syntax(runs: list[tuple[str, float]]) -> None:
    prompt = "".join(_with_weight(text, weight, "a1111") for text, weight in runs)
    if "<lora:" not in prompt.lower():
        by_character = [(character, weight) for text, weight in runs for character in text]
        assert [(c, weight) for text, weight in parse_prompt(prompt, "a1111") for c in text] == by_character


def test_an_edit_over_several_runs_is_made_once() -> None:
    runs = [("a snow", 1.0), (" m", 1.2), ("an, kitten", 1.0)]
    edits = [Edit(2, 10, "snowman"), Edit(12, 18, "cat")]
    assert _edited(runs, edits) == [("a snowman", 1.0), ("", 1.2), (", cat", 1.0)]


@pytest.mark.parametrize(
    "typed, known",
    [
        ("a lorry", "a truck"),
        ("an automobile", "a car"),
        ("two kittens in the snow", "two cats in the snow"),
        ("a hedgehgo", "a hedgehog"),
        ("a (kitten:1.4) on a beach", "a (cat:1.4) on a beach"),
        ("🦊 in snow", "fox in snow"),
    ],
)
def test_a_replaced_word_draws_what_the_known_word_draws(pipeline: Pipeline, typed: str, known: str) -> None:
    result, wanted = draw(pipeline, typed), draw(pipeline, known)
    assert torch.equal(result.pixels, wanted.pixels)
    assert result.clip is not None
    assert wanted.clip is not None
    assert result.clip.similarity == wanted.clip.similarity
    assert [check.probability for check in result.checks] == [check.probability for check in wanted.checks]
    assert result.settings.prompt == result.metadata["settings"]["prompt"] == typed
    [(field, message)] = messages(result, "word-replaced")
    assert field == "prompt"
    assert " is drawn as " in message
    assert messages(wanted, "word-replaced") == messages(wanted, "word-unknown") == []


def test_guidance_and_checks_use_known_words(pipeline: Pipeline) -> None:
    guided = {"guidance": "clip", "clip_guidance_scale": 0.5}
    typed = draw(pipeline, "a kitten", negative_prompt="a lorry", guide=["a puppy:0.5"], **guided)
    known = draw(pipeline, "a cat", negative_prompt="a truck", guide=["a dog:0.5"], **guided)
    assert torch.equal(typed.pixels, known.pixels)
    assert messages(typed, "word-replaced") == [
        ("prompt", "'kitten' is drawn as 'cat'"),
        ("negative_prompt", "'lorry' is read as 'truck'"),
        ("guide", "'puppy' is read as 'dog'"),
    ]
    assert typed.check(["a kitten"]) == known.check(["a cat"])


@pytest.mark.parametrize(
    "prompt, start",
    [
        ("ein Fuchs im Schnee", "knows no word of this prompt ('ein', 'Fuchs', 'im', 'Schnee')"),
        ("Angela", "knows no word of this prompt ('Angela')"),
        ("a dachshund on a skateboard", "does not know 'dachshund'."),
        ("🦕 and 🐕‍🦺", "does not know '🐕‍🦺'."),
    ],
)
def test_unknown_words_get_one_note(pipeline: Pipeline, prompt: str, start: str) -> None:
    [(field, message)] = messages(draw(pipeline, prompt), "word-unknown")
    assert field == "prompt"
    assert start in message
    assert message.endswith(f"It knows 260 things: clipgen models show {pipeline.origin.model} --words")


def test_each_image_has_the_notes_of_its_own_prompt(pipeline: Pipeline) -> None:
    settings = Settings(prompt="a {kitten|fox|dachshund}", seed=1, images=8, steps=1)
    for result in pipeline.run(settings):
        codes = [note.code for note in result.warnings if note.field == "prompt"]
        word = result.settings.prompt.removeprefix("a ")
        assert codes == {"kitten": ["word-replaced"], "fox": [], "dachshund": ["word-unknown"]}[word]


def test_the_prompt_embeddings_are_those_of_the_known_word(pipeline: Pipeline) -> None:
    encode = pipeline.encode_prompt
    typed, known = encode(Settings(prompt="a kitten")), encode(Settings(prompt="a cat"))
    assert all(torch.equal(typed[name], known[name]) for name in known)


def test_a_model_without_a_vocabulary_gets_the_prompt_as_it_is(pipeline: Pipeline, tiny_v: Path) -> None:
    plain = Pipeline.from_pretrained(str(tiny_v))
    result = draw(plain, "a kitten and a dachshund")
    assert not [note for note in result.warnings if note.code.startswith("word-")]
    assert torch.equal(draw(plain, "a fox in snow").pixels, draw(pipeline, "a fox in snow").pixels)
    assert not torch.equal(draw(plain, "a kitten").pixels, draw(plain, "a cat").pixels)


def test_prompts_of_the_readme_give_no_note() -> None:
    text = README.read_text("utf-8")
    prompts = set(re.findall(r'clipgen (?:batch |generate )?"([^"]+)"', text)) | set(
        re.findall(r"clipgen '([^']+)'", text)
    )
    assert "a fox in snow" in prompts
    for prompt in prompts:
        settings = Settings(prompt=re.sub(r"\{(\w+)\|\w+\}", r"\1", prompt))
        assert word_notes(settings, WORDS, "storybook") == [], prompt
