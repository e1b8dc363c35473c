"""The workshop and the tabs' handlers without a browser: what is drawn, what is refused, what stops."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from clipgen.ui import compare, events, form, generate, paste, stage
from clipgen.ui.line import Line, LineFull
from clipgen.ui.recall import in_terminal, settings_of
from clipgen.ui.shelf import Shelf
from clipgen.ui.tokens import tokens
from clipgen.ui.watch import card_of
from clipgen.ui.workshop import House, Loading, Picture, Stopped, Waiting, Workshop

from clipgen import history
from clipgen.compare import DUEL
from clipgen.errors import ClipgenError, SettingsError
from clipgen.image_file import digest_of, read_settings
from clipgen.pipeline.result import Step
from clipgen.settings.checks import LOCAL, SERVED
from clipgen.settings.preset import load_preset
from clipgen.settings.settings import Settings

FOX = {"prompt": "a fox", "steps": 2}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(scope="module")
def workshop(tiny_v: Path, shelf: Shelf) -> Workshop:
    """A workshop for strangers: nothing is kept, the limits are tight."""
    made = Workshop(House((str(tiny_v),), SERVED, device="cpu", keep=False, strangers=True), shelf, Line(most=3))
    made.open()
    return made


def raw(**values: Any) -> list[Any]:
    shown = dict(zip(form.SHOWN, form.write(Settings("a fox", steps=2).to_dict(), ()), strict=True))
    return list({**shown, "model": values.pop("model", ""), **values}.values())


def draw(workshop: Workshop, visitor: str = "v", **values: Any) -> list[Any]:
    return list(workshop.draw(workshop.settings({**FOX, **values}), visitor))


def test_pictures_are_on_the_shelf_with_their_settings_inside(workshop: Workshop, shelf: Shelf) -> None:
    events = draw(workshop, seed=7, images=2)
    pictures = [event for event in events if isinstance(event, Picture)]
    assert [picture.result.seed for picture in pictures] == [7, 8]
    assert all(picture.shown.is_relative_to(shelf.folder) and picture.saved is None for picture in pictures)
    assert read_settings(pictures[0].shown).settings.seed == 7
    assert sum(isinstance(event, Step) for event in events) == 4


def test_a_local_house_keeps_pictures_and_history(tiny_v: Path, shelf: Shelf, tmp_path: Path) -> None:
    house = House((str(tiny_v),), LOCAL, device="cpu", output=str(tmp_path / "pictures"), history=True)
    (picture,) = (event for event in draw(Workshop(house, shelf), seed=1) if isinstance(event, Picture))
    assert picture.saved is not None
    assert digest_of(picture.saved) == digest_of(picture.shown)
    assert history.find(["fox"])[0].path == picture.saved


@pytest.mark.parametrize(
    "values, field",
    [
        ({"images": 9}, "images"),
        ({"width": 2048, "height": 1024}, "width"),
        ({"width": 1024, "height": 1024, "steps": 150, "images": 8}, "width"),
        ({"cutouts": 64}, "cutouts"),
        ({"model": "/etc"}, "model"),
        ({"model": "org/name"}, "model"),
        ({"like": ["/etc/passwd"]}, "like"),
        ({"vary": "/etc/passwd:1"}, "vary"),
        ({"vary": ["/etc/passwd"]}, "vary"),
        ({"clip_models": ["/etc"]}, "clip_models"),
        ({"steps": float("nan")}, "steps"),
        ({"steps": True}, "steps"),
        ({"seed": "1"}, "seed"),
        ({"prompt": "x" * 1_000_000}, "prompt"),
        ({"prompt": ["a fox"]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": "a\0b"}, "prompt"),
        ({"preset": "phto"}, "preset"),
        ({"preset": {}}, "preset"),
        ({"preset": "../secret"}, "preset"),
        ({"wdith": 64}, "wdith"),
    ],
)
def test_what_strangers_may_not_ask_is_refused_by_field(workshop: Workshop, values: dict[str, Any], field: str) -> None:
    with pytest.raises(ClipgenError) as error:
        workshop.settings({**FOX, **values})
    assert error.value.field == field


def test_sizes_that_the_model_fills_in_are_held_to_the_limits_too(tiny_v: Path, shelf: Shelf) -> None:
    tight = Workshop(House((str(tiny_v),), type(SERVED)(pixels=64), device="cpu", keep=False), shelf)
    with pytest.raises(SettingsError, match="width x height must be at most 64"):
        draw(tight)


def test_stop_ends_within_a_step_and_the_next_picture_comes(workshop: Workshop) -> None:
    steps = 0
    for event in workshop.draw(workshop.settings({**FOX, "steps": 100}), "v"):
        if isinstance(event, Step):
            steps += 1
            if steps == 5:
                workshop.stop("v")
    assert (steps, isinstance(event, Stopped)) == (5, True)
    assert isinstance(draw(workshop)[-1], Picture)


def test_stop_acts_inside_a_step_of_a_guidance_that_takes_many_looks(workshop: Workshop) -> None:
    settings = workshop.settings({**FOX, "steps": 20, "guidance": "pick", "candidates": 16})
    job = workshop.draw(settings, "v")
    while not isinstance(next(job), Step):
        pass
    workshop.stop("v")
    assert list(job) == [Stopped()]


def test_a_picture_to_be_like_must_lie_on_the_shelf(workshop: Workshop, shelf: Shelf, tmp_path: Path) -> None:
    (drawn,) = (event for event in draw(workshop, seed=2) if isinstance(event, Picture))
    like = [f"{drawn.shown}:0.5"]
    (guided,) = (event for event in draw(workshop, seed=3, guidance="clip", like=like) if isinstance(event, Picture))
    assert read_settings(guided.shown).settings.like == (f"./{drawn.shown.name}:0.5",)
    elsewhere = tmp_path / "elsewhere.png"
    elsewhere.write_bytes(drawn.shown.read_bytes())
    with pytest.raises(SettingsError, match="not one that was uploaded here"):
        workshop.settings({**FOX, "like": [str(elsewhere)]})


def test_a_picture_to_vary_must_lie_on_the_shelf_and_the_model_must_see(
    tmp_path: Path, shelf: Shelf, workshop: Workshop
) -> None:
    model = str(tiny.save_varying(tmp_path / "tiny-varying"))
    varying = Workshop(House((model,), SERVED, device="cpu", keep=False, strangers=True), shelf)
    (drawn,) = (event for event in draw(varying, seed=2) if isinstance(event, Picture))
    assert (varying.varies, workshop.varies) == (True, False)
    asked = {"prompt": "", "vary": f"{drawn.shown}:1", "seed": 3}
    (varied,) = (event for event in draw(varying, **asked) if isinstance(event, Picture))
    card = card_of(varied, ())
    assert f"variation of {drawn.shown.stem}" in stage.finished(card)
    assert "to the picture it varies" in stage.finished(card)
    named = in_terminal(settings_of(card), varying)
    assert named.vary == f"{drawn.shown.name}:1"
    elsewhere = tmp_path / "elsewhere.png"
    elsewhere.write_bytes(drawn.shown.read_bytes())
    with pytest.raises(SettingsError, match="vary: The picture is not one that was uploaded here"):
        varying.settings({**FOX, "vary": str(elsewhere)})
    with pytest.raises(SettingsError, match="draws no variations"):
        draw(workshop, vary=str(drawn.shown))
    with pytest.raises(SettingsError, match="prompt must not be empty"):
        list(varying.compare(varying.settings(asked), None, DUEL, "v"))


def test_loading_counts_to_a_hundred_at_most(tiny_v: Path, shelf: Shelf) -> None:
    fresh = Workshop(House((str(tiny_v),), SERVED, device="cpu", keep=False), shelf)
    seen = [event.percent for event in fresh.draw(fresh.settings(FOX), "v") if isinstance(event, Loading)]
    assert seen == sorted(seen)
    assert 0 <= seen[0] <= seen[-1] <= 100
    assert fresh.percent == 99


def test_a_closed_job_leaves_the_line(workshop: Workshop) -> None:
    job = workshop.draw(workshop.settings(FOX), "v")
    next(job)
    assert len(workshop.line) == 1
    job.close()  # type: ignore[attr-defined]
    assert len(workshop.line) == 0


def test_waiting_jobs_know_their_place_and_can_be_stopped(workshop: Workshop) -> None:
    first = workshop.draw(workshop.settings(FOX), "a")
    next(first)
    second = workshop.draw(workshop.settings(FOX), "b")
    assert next(second) == Waiting(1)
    workshop.stop("b")
    assert list(second)[-1] == Stopped()
    assert isinstance(list(first)[-1], Picture)


def test_twenty_clients_get_each_their_own_pictures(workshop: Workshop) -> None:
    """Who finds the line full comes back; nobody gets another one's picture, none is lost."""
    got: dict[str, list[int]] = {}
    full: list[str] = []

    def visit(number: int) -> None:
        mine: list[int] = []
        for job in range(5):
            while True:
                try:
                    events = draw(workshop, f"v{number}", seed=100 * number + job, steps=1, width=64, height=64)
                except LineFull as error:
                    full.append(str(error))
                    threading.Event().wait(0.01)
                    continue
                mine += [event.result.seed for event in events if isinstance(event, Picture)]
                break
        got[f"v{number}"] = mine

    clients = [threading.Thread(target=visit, args=(number,)) for number in range(20)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert got == {f"v{n}": [100 * n + job for job in range(5)] for n in range(20)}
    assert set(full) == {"The line is full: 3 jobs wait. Try again in a minute."}


class TestGenerate:
    def test_a_run_shows_previews_then_the_picture(self, workshop: Workshop, tiny_v: Path) -> None:
        views = list(generate.run(workshop, raw(model=str(tiny_v)), "v"))
        stages = [view.stage for view in views if view.stage]
        assert "step 2 of 2" in stages[-2]
        assert 'data-final="1"' in stages[-1]
        assert [view.busy for view in views] == [True] * (len(views) - 1) + [False]
        assert views[-2].cards is not None
        assert len(views[-2].cards) == 1

    @pytest.mark.parametrize("prompt, told", [("", "prompt must not be empty"), ("(a:9)", "weight must be 0 to 2")])
    def test_errors_come_as_words(self, workshop: Workshop, tiny_v: Path, prompt: str, told: str) -> None:
        last = list(generate.run(workshop, raw(prompt=prompt, model=str(tiny_v)), "v"))[-1]
        assert (told in last.message, last.busy) == (True, False)

    def test_a_pasted_block_is_not_drawn(self, workshop: Workshop) -> None:
        last = list(generate.run(workshop, raw(prompt="a fox\nSteps: 20, Seed: 1, Size: 64x64"), "v"))[-1]
        assert last.message == "These are settings of a picture: press Load settings."

    def test_tokens_are_counted_and_lost_words_struck(self, workshop: Workshop) -> None:
        draw(workshop)
        assert "of 30 tokens" in tokens(workshop, "a fox")
        assert "not read: <s>" in tokens(workshop, "fox & hound " * 20)
        assert tokens(workshop, "  ") == ""


class TestPaste:
    def test_a_block_of_another_app_fills_the_form(self) -> None:
        block = "a fox\nNegative prompt: trees\nSteps: 25, Sampler: Euler a, CFG scale: 6, Seed: 9, Size: 128x128"
        values, told = paste.restore_text(block)
        assert values is not None
        assert (values["prompt"], values["seed"], values["scheduler"]) == ("a fox", 9, "euler_ancestral")
        assert "Another app's noise differs" in told or "Another app&#x27;s noise differs" in told

    @pytest.mark.parametrize(
        "text",
        ["a fox", "{red|blue} fox", "Steps to the sea", "poster: big, text: red", "love = fox"],
    )
    def test_prompts_are_no_settings(self, text: str) -> None:
        assert not paste.looks_pasted(text)

    def test_too_much_is_refused(self) -> None:
        values, told = paste.restore_text("x" * 65_537)
        assert (values, "at most 65,536 characters" in told) == (None, True)

    @pytest.mark.parametrize(
        "text, wanted",
        [
            ('prompt = "an owl"\nsteps = 30\nseed = "random"', {"prompt": "an owl", "steps": 30, "seed": None}),
            ('# mine\nguidance = "clip"', {"prompt": "", "guidance": "clip"}),
            (load_preset("pencil").path.read_text(), {"prompt": "pencil sketch", "preset": None}),
            (load_preset("fast").path.read_text(), {"prompt": "", "steps": 8, "scheduler": "dpm++_2m"}),
            ('schema = "clipgen/1"\nseed = 5\n[settings]\nprompt = "a fox"\nsteps = 9', {"seed": 5, "steps": 9}),
        ],
    )
    def test_toml_fills_the_form(self, text: str, wanted: dict[str, Any]) -> None:
        assert paste.looks_pasted(text)
        values, told = paste.restore_text(text)
        assert values is not None, told
        assert wanted.items() <= values.items()
        assert form.read(form.write(values, ())).keys() >= set(form.SHOWN) - {*form.WEIGHTS.values()}

    @pytest.mark.parametrize(
        "text, told",
        [
            ("steps = 30\nwdith = 64", "Did you mean"),
            ("steps = many", "not valid TOML"),
            ("steps = 999", "steps must be 1 to 150"),
            ("[settings]\nmodel = '/etc'", "schema must be 1"),
            ("prompt = 'a'\nx = " + "[" * 2000, "pasted.toml"),
        ],
    )
    def test_toml_that_is_wrong_is_refused_in_words(self, text: str, told: str) -> None:
        values, said = paste.restore_text(text)
        assert (values, told in said) == (None, True), said


class TestCompare:
    def events(self, workshop: Workshop, tiny_v: Path, **values: Any) -> Iterator[Any]:
        return compare.run(workshop, raw(model=str(tiny_v), steps="3", **values), "", DUEL, "v")

    def test_it_shows_both_a_verdict_and_the_cost(self, workshop: Workshop, tiny_v: Path) -> None:
        found = [arms for _, arms in self.events(workshop, tiny_v) if arms is not None]
        assert [name for name, _ in found[-1].cards][:2] == ["unguided", "guided"]
        assert all(word in found[-1].verdict for word in ("guided against unguided", "self-graded", "Seconds"))
        assert found[-1].cards[1][1].twin == found[-1].cards[0][1].curve

    def test_a_judge_that_guides_is_refused(self, workshop: Workshop, tiny_v: Path) -> None:
        view, _ = list(compare.run(workshop, raw(model=str(tiny_v)), str(tiny_v), DUEL, "v"))[-1]
        assert "judge must be a hub id on this machine" in view.message


class TestApi:
    def test_events_end_with_an_envelope(self, workshop: Workshop) -> None:
        happened = list(events.generate(workshop, {**FOX, "seed": 3}, "v"))
        assert [event["type"] for event in happened if event["type"] != "loading"] == [
            "start",
            "step",
            "step",
            "image",
            "envelope",
        ]
        assert (happened[-1]["ok"], happened[-1]["data"]) == (True, {"pictures": 1})

    def test_a_refusal_is_an_envelope_too(self, workshop: Workshop) -> None:
        (envelope,) = events.generate(workshop, {**FOX, "images": 9}, "v")
        assert (envelope["ok"], envelope["exit"], envelope["error"]["field"]) == (False, 2, "images")
        assert envelope["error"]["message"] == "images must be 1 to 8, got '9'"
