"""`clipgen generate` with tiny models: files, streams, events, scores, history."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clipgen import history
from clipgen.cli.app import main
from clipgen.image_file import read_settings
from clipgen.settings.settings import FIELDS

from ..conftest import Ran, Run


@pytest.fixture
def model(tiny_epsilon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast model without a CLIP."""
    monkeypatch.setenv("CLIPGEN_MODEL", str(tiny_epsilon))
    monkeypatch.setenv("CLIPGEN_STEPS", "2")


@pytest.fixture
def scored(tiny_v: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with a CLIP."""
    monkeypatch.setenv("CLIPGEN_MODEL", str(tiny_v))
    monkeypatch.setenv("CLIPGEN_STEPS", "2")


def pixels(path: str | Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def seeds(ran: Ran) -> list[int]:
    return [read_settings(path).settings.seed or 0 for path in ran.lines]


@pytest.mark.usefixtures("model")
class TestFiles:
    def test_stdout_has_one_path_per_image(self, run: Run) -> None:
        ran = run("a fox", "in snow", "-s", "7", "-n", "2")
        assert ran.code == 0
        assert [Path(line).name for line in ran.lines] == [
            "a-fox-7.png",
            "a-fox-8.png",
            "in-snow-7.png",
            "in-snow-8.png",
        ]
        assert seeds(ran) == [7, 8, 7, 8]
        assert ran.err.count("seed 7") == 2

    def test_a_random_seed_is_printed_and_stored(self, run: Run) -> None:
        ran = run("a fox")
        [seed] = seeds(ran)
        assert f"seed {seed}  " in ran.err
        assert seed < 2**32
        assert pixels(run("a fox", "-s", str(seed)).lines[0]) == pixels(ran.lines[0])

    def test_the_same_settings_give_the_same_bytes_in_a_new_file(self, run: Run) -> None:
        first, second = run("a fox", "-s", "7").lines, run("a fox", "-s", "7").lines
        assert Path(second[0]).name == "a-fox-7-1.png"
        assert Path(first[0]).read_bytes() == Path(second[0]).read_bytes()

    def test_an_image_does_not_depend_on_its_batch(self, run: Run) -> None:
        several = run("a fox", "-s", "7", "-n", "3").lines
        exact = run("a fox", "-s", "7", "-n", "3", "--exact").lines
        alone = [run("a fox", "-s", str(seed)).lines[0] for seed in (7, 8, 9)]
        assert [Path(path).read_bytes() for path in exact] == [Path(path).read_bytes() for path in alone]
        for one, other in zip(several, alone, strict=True):
            difference = [abs(a - b) for a, b in zip(pixels(one), pixels(other), strict=True)]
            assert max(difference) <= 1

    @pytest.mark.parametrize(
        "words, name, kind",
        [
            (["-o", "fox.png"], "fox.png", "PNG"),
            (["-o", "fox.jpg"], "fox.jpg", "JPEG"),
            (["-o", "pics/"], "pics/a-fox-7.png", "PNG"),
            (["-o", "pics", "--format", "webp"], "pics/a-fox-7.webp", "WEBP"),
            (["-o", "$slug/$steps-$seed.jpg"], "a-fox/2-7.jpg", "JPEG"),
            (["--format", "jpeg", "-o", "x$n"], "x0001.jpg", "JPEG"),
        ],
    )
    def test_output_paths(self, run: Run, words: list[str], name: str, kind: str) -> None:
        ran = run("a fox", "-s", "7", *words)
        assert ran.lines == [name]
        with Image.open(name) as image:
            assert image.format == kind
        assert read_settings(name).settings.prompt == "a fox"

    def test_nothing_is_overwritten(self, run: Run) -> None:
        Path("fox.png").write_text("mine")
        assert run("a fox", "-o", "fox.png").lines == ["fox-1.png"]
        assert Path("fox.png").read_text() == "mine"

    def test_config_sets_output_and_history(self, run: Run) -> None:
        for key, value in (("output.path", "made/"), ("output.format", "webp"), ("history.on", "false")):
            run("config", "set", key, value)
        assert run("a fox", "-s", "7").lines == ["made/a-fox-7.webp"]
        assert history.last() is None
        assert run("a fox", "-s", "7", "-o", "x.png").lines == ["x.png"]

    def test_without_metadata(self, run: Run) -> None:
        [path] = run("a fox", "--no-metadata").lines
        data = Path(path).read_bytes()
        assert b"a fox" not in data
        assert b"trainedAlgorithmicMedia" in data
        assert run("info", path).code == 1

    @pytest.mark.parametrize(
        "words, code, message",
        [
            (["-o", "-", "-n", "2"], 2, "--output - is for one picture"),
            (["-o", "-", "--json"], 2, "--output - and --json exclude each other"),
            (["-o", "fox.gif"], 2, "Unknown picture format '.gif'"),
            (["-o", "$colour"], 2, "colour"),
            (["-o", "fox.png", "--format", "jpeg"], 2, "--format jpeg does not fit the name 'fox.png'"),
            (["-o", "/proc/pictures/"], 1, "Cannot write '/proc/pictures"),
            (["--preview", "/proc/x.png"], 1, "'/proc/x.png' cannot be written"),
            (["--keep", "2"], 2, "keep must be at most 1, the number of pictures, got '2'"),
            (["--device", "cuda:9"], 2, "Device 'cuda:9' is not available. Devices: auto, cpu."),
            (["--dtype", "int8"], 2, "Unknown dtype 'int8'."),
            (["--vae", "x.ckpt"], 1, "vae: 'x.ckpt' is a pickle, which can run code"),
            (["--vae", "nowhere.safetensors"], 3, "vae: There is no file 'nowhere.safetensors'."),
            (["-m", "nowhere.safetensors"], 3, "There is no file 'nowhere.safetensors'."),
        ],
    )
    def test_invalid_options_are_refused_before_the_first_step(
        self, run: Run, words: list[str], code: int, message: str
    ) -> None:
        ran = run("a fox", *words)
        assert ran.code == code
        assert message in ran.err
        assert not list(Path().rglob("*.png"))

    def test_a_broken_model_is_one_error_line(self, run: Run, tiny_epsilon: Path) -> None:
        import shutil

        broken = Path(shutil.copytree(tiny_epsilon, "broken"))
        weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        ran = run("a fox", "-m", "./broken")
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("clipgen: ")
        assert ran.err.count("\n") == 1

    def test_the_preview_is_replaced_atomically(self, run: Run) -> None:
        assert run("a fox", "-n", "2", "--steps", "3", "--preview", "now.jpg").code == 0
        with Image.open("now.jpg") as image:
            image.load()
            assert (image.format, image.size) == ("JPEG", (64, 64))
        assert not [path for path in Path().iterdir() if path.name.endswith(".tmp")]

    def test_from_an_image(self, run: Run) -> None:
        [first] = run("a fox", "-s", "7", "--cfg", "3").lines
        [again] = run("generate", "--from", first).lines
        assert pixels(first) == pixels(again)
        [other] = run("an owl", "--from", first).lines
        settings = read_settings(other).settings
        assert (settings.prompt, settings.seed, settings.guidance_scale) == ("an owl", 7, 3.0)

    def test_choices_depend_on_the_seed_and_are_replayed(self, run: Run) -> None:
        ran = run("a {red|green|blue} fox", "-s", "1,2,3,4")
        prompts = [read_settings(path).settings.prompt for path in ran.lines]
        assert len(set(prompts)) > 1
        [again] = run("generate", "--from", ran.lines[0]).lines
        assert pixels(again) == pixels(ran.lines[0])


@pytest.mark.usefixtures("model")
class TestStreams:
    def test_events(self, run: Run) -> None:
        ran = run("a", "fox", "-n", "2", "-s", "7", "--steps", "3", "--json")
        events = ran.events
        kinds = [event["type"] for event in events if event["type"] != "step"]
        loading = ["loading", "loading"]
        assert kinds == ["warning", "start", *loading, "warning", "image", "image", "envelope"]
        assert all(isinstance(event["t"], float) for event in events)
        assert [event["t"] for event in events] == sorted(event["t"] for event in events)
        start = next(event for event in events if event["type"] == "start")
        assert (start["schema"], start["images"], list(start["settings"])) == ("clipgen-events/1", 2, list(FIELDS))
        assert ran.err == ""

    def test_first_and_last_step_have_an_event(self, run: Run) -> None:
        steps = [e for e in run("a fox", "--steps", "9", "--json").events if e["type"] == "step"]
        assert (steps[0]["step"], steps[-1]["step"], steps[0]["steps"]) == (1, 9, 9)
        assert steps[0]["eta"] is None
        assert steps[-1]["eta"] >= 0

    def test_the_image_event_names_the_file(self, run: Run) -> None:
        ran = run("a fox", "-s", "7", "--json")
        image = next(event for event in ran.events if event["type"] == "image")
        assert (image["image"], image["seed"], image["clip"]) == (0, 7, None)
        assert image["sha256"] == hashlib.sha256(Path(image["path"]).read_bytes()).hexdigest()
        assert ran.data == {"count": 1, "images": [{"path": image["path"], "seed": 7}]}

    def test_the_last_event_is_the_only_envelope(self, run: Run) -> None:
        for words in (["a fox"], ["a fox", "-m", "./nothing"], ["a fox", "--steps", "0"], ["a fox", "--bogus"]):
            ran = run(*words, "--json")
            assert [event["type"] for event in ran.events].count("envelope") == 1
            envelope = ran.events[-1]
            assert (envelope["ok"], envelope["exit"]) == (not ran.code, ran.code)
            assert (envelope["error"] is None) == envelope["ok"]
            assert max(map(len, ran.lines)) < 65_536

    def test_a_pipe_gets_no_escape_sequences(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("KITTY_WINDOW_ID", "1")
        ran = run("a", "fox", "-s", "1", "--show", "kitty")
        assert "\x1b" not in ran.out
        assert "\x1b[2mseed 1" in ran.err
        assert "\x1b_G" not in ran.err
        assert run("a", "fox", "-s", "1", "--json").err == ""

    def test_quiet_and_verbose(self, run: Run) -> None:
        quiet = run("a", "fox", "-q")
        assert (quiet.err, len(quiet.lines)) == ("", 1)
        failed = run("a fox", "-q", "--steps", "0")
        assert failed.err == "clipgen: steps must be 1 to 150, got '0'\n"
        loud = run("a fox", "-v", "--steps", "0")
        assert loud.err.endswith(failed.err)
        assert "Traceback" in loud.err

    def test_a_warning_is_printed_once(self, run: Run) -> None:
        assert run("a fox", "-n", "3").err.count("warning: ") == 1
        assert run("a fox", "-n", "3", "--json").out.count('"type": "warning"') == 1

    def test_a_truncated_prompt_is_a_warning(self, run: Run) -> None:
        assert "warning: prompt is longer than the 75 tokens the model reads; left out: 'word" in run("word " * 100).err
        assert run("word " * 100, "--long-prompt", "error").code == 2


@pytest.mark.usefixtures("scored")
class TestScores:
    def test_the_score_line(self, run: Run) -> None:
        plain, loud = run("a fox", "-s", "7"), run("a fox", "-s", "7", "-v")
        assert "% of " in plain.err
        assert "similarity" not in plain.err
        assert "similarity 0." in loud.err or "similarity -0." in loud.err

    def test_events_have_the_score(self, run: Run) -> None:
        events = run("a fox", "-s", "7", "--json").events
        clip = next(event for event in events if event["type"] == "image")["clip"]
        assert {"model", "similarity", "score", "percentile", "captions", "self_graded"} <= clip.keys()
        last = [event for event in events if event["type"] == "step"][-1]
        assert isinstance(last["similarity"], float)

    def test_keep_saves_the_best(self, run: Run) -> None:
        every = [e for e in run("a fox", "-s", "1", "-n", "4", "--json").events if e["type"] == "image"]
        ranked = sorted(every, key=lambda e: (e["clip"]["percentile"], e["clip"]["similarity"]), reverse=True)
        ran = run("a fox", "-s", "1", "-n", "4", "--keep", "2", "-o", "best/")
        assert seeds(ran) == [event["seed"] for event in ranked[:2]]
        assert len(list(Path("best").iterdir())) == 2

    def test_keep_selects_per_prompt(self, run: Run) -> None:
        ran = run("a fox", "an owl", "-s", "1,2", "--keep", "1", "--json")
        images = [event for event in ran.events if event["type"] == "image"]
        assert sorted(event["image"] for event in images) == [0, 1, 2, 3]
        written = [event for event in images if event["path"]]
        assert [event["prompt"] for event in written] == ["a fox", "an owl"]
        assert ran.data["count"] == 2

    def test_below_min_score(self, run: Run) -> None:
        low = run("a fox", "-s", "7", "--min-score", "100", "--json")
        assert low.code == 6
        assert low.events[-1]["error"]["code"] == "below-min-score"
        assert Path(low.data["images"][0]["path"]).is_file()
        assert run("a fox", "-s", "7", "--min-score", "0").code == 0

    @pytest.mark.parametrize("option", [("--min-score", "50"), ("--keep", "1"), ("--require", "a fox")])
    def test_options_that_need_a_score_are_refused_without_a_clip(
        self, run: Run, tiny_epsilon: Path, option: tuple[str, str]
    ) -> None:
        model = str(tiny_epsilon)
        ran = run("a fox", "-m", model, "-n", "2", *option, "--json")
        field = option[0][2:].replace("-", "_")
        error = ran.events[-1]["error"]
        assert (ran.code, error["code"], error["field"], len(ran.events)) == (2, "settings-error", field, 1)
        assert f"{field} needs a CLIP that scores the pictures, and model '{model}' has none" in error["message"]

    def test_a_named_clip_scores(self, run: Run, tiny_epsilon: Path, tiny_v: Path) -> None:
        words = ("-n", "2", "-s", "7", "--steps", "2", "--keep", "1", "--clip-model", str(tiny_v / "clip"))
        ran = run("a fox", "-m", str(tiny_epsilon), *words, "--json")
        images = [event for event in ran.events if event["type"] == "image"]
        scores = {bool(event["path"]): event["clip"]["similarity"] for event in images}
        assert (ran.code, scores[True] >= scores[False]) == (0, True)

    def test_percent_in_a_name(self, run: Run) -> None:
        [path] = run("a fox", "-s", "7", "-o", "$percent-$seed").lines
        assert Path(path).stem.endswith("-7")
        assert float(Path(path).stem.removesuffix("-7")) >= 0


@pytest.mark.usefixtures("model")
class TestHistory:
    def test_an_image_is_recorded(self, run: Run) -> None:
        [path] = run("a fox", "-s", "7").lines
        entry = history.last()
        assert entry is not None
        assert entry.path == Path(path).absolute()
        assert entry.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
        assert (entry.settings.prompt, entry.settings.seed, entry.settings.steps) == ("a fox", 7, 2)

    def test_local_models_have_absolute_paths(self, run: Run, tiny_epsilon: Path) -> None:
        Path("here").symlink_to(tiny_epsilon)
        run("a fox", "-m", "./here")
        entry = history.last()
        assert entry is not None
        assert entry.settings.model == str(Path("here").absolute())

    def test_no_history(self, run: Run) -> None:
        run("a fox", "--no-history")
        assert history.last() is None

    def test_a_damaged_history_is_a_warning(self, run: Run, private_home: Path) -> None:
        (private_home / "history.db").write_bytes(b"x" * 500)
        ran = run("a fox")
        assert (ran.code, len(ran.lines)) == (0, 1)
        assert "warning: The history" in ran.err


def test_the_umask_is_respected(run: Run, tiny_epsilon: Path) -> None:
    before = os.umask(0o027)
    try:
        [path] = run("a fox", "-m", str(tiny_epsilon), "--steps", "2").lines
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o640


def test_stdin_as_prompt(run: Run, tiny_epsilon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a fox\n")))
    [path] = run("-", "-m", str(tiny_epsilon), "--steps", "2").lines
    assert read_settings(path).settings.prompt == "a fox"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a f\xffx")))
    assert "valid UTF-8" in run("-").err


def test_the_record_has_no_absolute_path(run: Run, tiny_epsilon: Path) -> None:
    [path] = run("a fox", "-m", str(tiny_epsilon), "--steps", "2").lines
    record: Any = read_settings(path).record
    assert str(tiny_epsilon.parent) not in json.dumps(record)
    assert record["settings"]["model"] == f"./{tiny_epsilon.name}"


def test_bytes_on_stdout(tiny_epsilon: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    words = ["a fox", "-s", "7", "--steps", "2", "-m", str(tiny_epsilon)]
    assert main(words) == 0
    path = capfdbinary.readouterr().out.decode().strip()
    assert main([*words, "-o", "-"]) == 0
    assert capfdbinary.readouterr().out == Path(path).read_bytes()
