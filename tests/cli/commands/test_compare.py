"""`clipgen compare`: variants, judges, and two files; and --compare of generate."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tiny_siglip
from PIL import Image

from clipgen import history
from clipgen.compare import MAX_BEST_OF, extra_images
from clipgen.image_file import read_settings
from clipgen.report.comparison import UNCLEAR, ComparisonRow, ScoreSummary, against, averaged, verdicts
from clipgen.settings.settings import GUIDANCE_FIELDS

from ..conftest import Run
from ..test_interrupt import signal_after

FOX = ["a fox", "-s", "3", "--steps", "3"]


@pytest.fixture
def model(tiny_v: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model with a CLIP."""
    monkeypatch.setenv("CLIPGEN_MODEL", str(tiny_v))
    return str(tiny_v)


@pytest.fixture(scope="session")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP that does not guide."""
    return str(tiny_siglip.save(tmp_path_factory.mktemp("judges") / "siglip", "siglip"))


def level(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image, dtype=np.float32)


def row(arm: str, seconds: float, guide: float | None, judge: float | None = None) -> ComparisonRow:
    judged = None if judge is None else ScoreSummary(0.2, judge)
    return ComparisonRow(arm, 2 if arm.startswith("best") else 1, seconds, ScoreSummary(0.3, guide), judged)


class TestVerdict:
    def test_the_judge_decides(self) -> None:
        judged = against(row("guided", 3, 99, judge=60), row("unguided", 2, 10, judge=50))
        assert str(judged) == "guided against unguided: +10.0 points, for 1.0 s more"

    def test_without_a_judge_it_is_marked_self_graded(self) -> None:
        alone = against(row("guided", 1, 99), row("unguided", 2, 10))
        assert str(alone) == "guided against unguided: +89.0 points, self-graded, for 1.0 s less"

    @pytest.mark.parametrize("points, clear", [(0.99, False), (-0.99, False), (1.0, True), (-1.0, True)])
    def test_less_than_one_point_is_no_clear_difference(self, points: float, clear: bool) -> None:
        found = against(row("guided", 1, 0, judge=50 + points), row("unguided", 1, 0, judge=50))
        assert (UNCLEAR not in str(found), found.clear) == (clear, clear)

    def test_without_calibration_no_gain_is_claimed(self) -> None:
        found = against(row("guided", 1, None), row("unguided", 1, None))
        assert ("similarity +0.000, uncalibrated" in str(found), found.clear) == (True, False)

    def test_means_over_seeds(self) -> None:
        first = [row("unguided", 1, 10), row("guided", 2, 20), row("best of 2", 2, 30)]
        second = [row("unguided", 3, 30), row("guided", 4, 60), row("best of 3", 4, 50)]
        means = averaged([first, second])
        assert [(each.variant, each.seconds, each.guide.percentile) for each in means] == [
            ("unguided", 2, 20),
            ("guided", 3, 40),
            ("best of several", 3, 40),
        ]
        assert [each.points for each in verdicts(means)] == [20, 20, 0]

    @pytest.mark.parametrize(
        "plain, guided, count", [(1, 1.5, 1), (1, 0.5, 1), (1, 3.9, 2), (1, 4, 3), (1, 1e6, MAX_BEST_OF - 1)]
    )
    def test_images_that_fit_into_the_extra_seconds(self, plain: float, guided: float, count: int) -> None:
        assert extra_images(plain, guided) == count


@pytest.mark.usefixtures("model")
class TestCompare:
    def test_three_files_from_the_same_noise(self, run: Run) -> None:
        ran = run("compare", *FOX, "-c", "0.5", "-o", "made/", "--no-history")
        assert ran.code == 0
        table = [line.split("\t") for line in ran.lines]
        assert [cells[0].rstrip("0123456789") for cells in table] == ["unguided", "guided", "best of "]
        plain, guided, best = (cells[-1] for cells in table)
        assert (Path(plain).name, Path(guided).name) == ("a-fox-3-unguided.png", "a-fox-3.png")
        assert "best-of-" in best
        assert [read_settings(path).settings.guidance for path in (plain, guided, best)] == ["off", "clip", "off"]
        [alone] = run(*FOX, "--no-history").lines
        assert (level(alone) == level(plain)).all()
        assert (level(plain) != level(guided)).any()
        assert history.last() is None

    def test_the_dial_guides_the_same_noise_more_and_less(self, run: Run) -> None:
        ran = run("compare", *FOX, "-c", "0.4", "--dial", "-o", "made/", "--no-history")
        table = [line.split("\t") for line in ran.lines]
        assert [cells[0] for cells in table] == ["unguided", "quarter", "half", "guided", "double"]
        drawn = [read_settings(cells[-1]).settings for cells in table]
        assert [each.clip_guidance_scale for each in drawn[1:]] == [0.1, 0.2, 0.4, 0.8]
        assert len({each.seed for each in drawn}) == 1
        assert len([line for line in ran.err.splitlines() if " against unguided" in line]) == 4
        strongest = run("compare", *FOX, "-c", "0.6", "--dial", "-o", "made/", "--no-history")
        assert [line.split("\t")[0] for line in strongest.lines] == ["unguided", "quarter", "half", "guided"]

    def test_a_dial_needs_a_guidance_scale(self, run: Run) -> None:
        for flags, given in ((("--guidance", "pick"), "pick"), (("--budget", "1.5"), "budget 1.5")):
            ran = run("compare", *FOX, *flags, "--dial")
            assert (ran.code, ran.out) == (2, "")
            assert f"it needs guidance clip, got {given}" in ran.err

    def test_without_a_judge_it_is_self_graded(self, run: Run) -> None:
        ran = run("compare", *FOX)
        verdict_lines = [line for line in ran.err.splitlines() if " against " in line]
        assert len(verdict_lines) == 3
        assert all("self-graded, for " in line for line in verdict_lines)
        assert "--judge NAME" in ran.err
        assert [line.split("\t")[3] for line in ran.lines] == ["none"] * 3

    def test_a_judge_that_did_not_guide(self, run: Run, siglip: str) -> None:
        ran = run("compare", *FOX, "--judge", siglip, "--json")
        [events] = ran.events
        assert events["type"] == "envelope"
        arms = ran.data["mean"]
        assert arms == ran.data["comparisons"][0]
        assert arms[0]["guide"]["similarity"] != arms[0]["judge"]["similarity"]
        assert [verdict["self_graded"] for verdict in ran.data["verdicts"]] == [False] * 3
        assert arms[2]["guide"]["similarity"] >= arms[0]["guide"]["similarity"]

    def test_the_models_own_clip_judges_if_another_guides(self, run: Run, siglip: str) -> None:
        ran = run("compare", *FOX, "--clip-model", siglip, "--json")
        assert [verdict["self_graded"] for verdict in ran.data["verdicts"]] == [False] * 3

    def test_the_guiding_clip_under_another_name_is_no_judge(self, run: Run, model: str) -> None:
        ran = run("compare", *FOX, "--clip-model", f"{model}/clip", "--json")
        assert [verdict["self_graded"] for verdict in ran.data["verdicts"]] == [True] * 3

    def test_the_models_own_judge_judges_unless_it_guides(
        self, run: Run, model: str, siglip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "judged"
        shutil.copytree(model, folder)
        shutil.copytree(siglip, folder / "judge")
        monkeypatch.setenv("CLIPGEN_MODEL", str(folder))
        own, named = run("compare", *FOX, "--json"), run("compare", *FOX, "--judge", siglip, "--json")
        assert [verdict["self_graded"] for verdict in own.data["verdicts"]] == [False] * 3
        assert own.data["mean"][1]["judge"] == named.data["mean"][1]["judge"]
        guiding = run("compare", *FOX, "--clip-model", f"{folder}/judge", "--json")
        assert guiding.data["mean"][1]["judge"] != guiding.data["mean"][1]["guide"]
        assert [verdict["self_graded"] for verdict in guiding.data["verdicts"]] == [False] * 3

    def test_the_guided_image_is_drawn_again(self, run: Run) -> None:
        run("compare", *FOX, "-c", "0.5")
        entry = history.last()
        assert entry is not None
        assert (entry.settings.guidance, entry.path.name) == ("clip", "a-fox-3.png")
        assert {history.last(back).settings.guidance for back in (1, 2)} == {"off"}

    def test_a_budget_can_be_compared(self, run: Run) -> None:
        ran = run("compare", "a fox", "-s", "3", "--steps", "8", "--budget", "4x", "--json")
        assert ran.code == 0
        guided = read_settings(ran.data["mean"][1]["path"]).settings
        assert (guided.budget, "pick" in guided.guidance) == (None, False)  # the settings that the budget chose

    def test_pick_can_be_compared(self, run: Run) -> None:
        ran = run(
            "compare", "a fox", "-s", "3", "--steps", "8", "--guidance", "clip+pick", "--candidates", "2", "--json"
        )
        assert [variant["variant"].rstrip("0123456789") for variant in ran.data["mean"]] == [
            "unguided",
            "guided",
            "best of ",
        ]
        assert ran.data["mean"][0]["seed"] == 3

    def test_a_signal_stops_it(self, run: Run) -> None:
        with signal_after(0.5, signal.SIGINT):
            ran = run("compare", "a fox", "-s", "1-50", "--steps", "50")
        assert (ran.code, ran.err.splitlines()[-1].startswith("clipgen: Stopped")) == (130, True)

    def test_several_seeds_have_a_mean(self, run: Run) -> None:
        ran = run("compare", "a fox", "-s", "3,4", "--steps", "2")
        assert [line.split("\t")[0] for line in ran.lines[6:8]] == ["mean of 2: unguided", "mean of 2: guided"]

    def test_a_dry_run_names_the_source_of_guidance(self, run: Run) -> None:
        ran = run("compare", *FOX, "--dry-run", "--json")
        assert ran.data["runs"][0]["guidance"] == {"value": "clip", "from": "compare"}

    def test_invalid_options_before_anything_is_loaded(self, run: Run, model: str) -> None:
        for words, message in (
            (["--guidance", "off"], "compare needs guidance"),
            (["--judge", model], "guides these pictures: name another CLIP"),
            (["--judge", "nobody"], "Unknown model 'nobody'"),
            (["--like", "none.png"], "none.png' cannot be opened: No such file"),
            (["--guard", "two-key"], "two-key needs a second CLIP"),
            (["-o", "-"], "compare cannot write to stdout"),
        ):
            ran = run("compare", *FOX, *words)
            assert (ran.code, ran.out, message in ran.err) == (2, "", True), ran.err
            assert len(ran.err.splitlines()) == 1


class TestFiles:
    def test_two_images(self, run: Run, model: str, siglip: str) -> None:
        run(*FOX, "-o", "a.png")
        run(*FOX, "-o", "b.png", "-c", "0.5")
        ran = run("compare", "a.png", "b.png", "--judge", siglip, "--json")
        assert ran.data["settings"].keys() == {"guidance", "clip_guidance_scale", *GUIDANCE_FIELDS}
        assert ran.data["settings"]["guidance"] == {"left": "off", "right": "clip"}
        expected = np.abs(level("a.png") - level("b.png")).mean()
        assert ran.data["mean_pixel_difference"] == pytest.approx(expected, rel=1e-5)
        assert not ran.data["self_graded"]
        assert run("compare", "a.png", "b.png", "-m", model, "--json").data["self_graded"]
        rows = [line.split("\t") for line in run("compare", "a.png", "b.png", "--judge", siglip).lines]
        assert rows[0] == ["guidance", "off", "clip"]
        assert rows[-2][0] == "CLIP score by siglip"

    def test_images_without_settings_take_a_prompt(self, run: Run, siglip: str) -> None:
        for name, colour in (("red.png", (255, 0, 0)), ("black.png", (0, 0, 0))):
            Image.new("RGB", (32, 32), colour).save(name)
        ran = run("compare", "red.png", "black.png", "-p", "a fox", "--judge", siglip, "--json")
        assert ran.data["mean_pixel_difference"] == pytest.approx(85)
        assert ran.data["opinions"].keys() == {"left", "right"}
        assert run("compare", "red.png", "black.png", "--json").data["opinions"] == {}

    def test_compare_needs_two_files(self, run: Run) -> None:
        Image.new("RGB", (8, 8)).save("a.png")
        for words in (["a.png"], ["a.png", "b.png"], ["a.png"] * 3):
            ran = run("compare", *words)
            assert (ran.code, "two pictures" in ran.err) == (2, True)


@pytest.mark.usefixtures("model")
class TestTwin:
    def test_the_twin_is_the_unguided_image(self, run: Run) -> None:
        twin, guided = run(*FOX, "-c", "0.5", "--compare", "-o", "made/").lines
        assert (Path(twin).name, Path(guided).name) == ("a-fox-3-unguided.png", "a-fox-3.png")
        [alone] = run(*FOX).lines
        assert (level(alone) == level(twin)).all()

    def test_again_draws_the_guided_image_and_optionally_a_twin(self, run: Run) -> None:
        first = run(*FOX, "-c", "0.5", "--compare").lines
        again = run("again", "--compare").lines
        assert [(level(a) == level(b)).all() for a, b in zip(first, again, strict=True)] == [True, True]

    def test_steps_carry_the_twins_similarity(self, run: Run) -> None:
        events = run("a fox", "-n", "2", "--steps", "3", "-c", "1", "--compare", "--json").events
        steps = [event for event in events if event["type"] == "step" and event["step"] in (1, 3)]
        twins, guided = ([e for e in steps if e["image"] // 2 == half] for half in (0, 1))
        assert [event["similarity_unguided"] for event in twins] == [None] * 4
        assert [event["similarity_unguided"] for event in guided] == [event["similarity"] for event in twins]
        images = [event for event in events if event["type"] == "image"]
        assert [image["twin"] for image in images] == [True, True, False, False]
        assert [image["seed"] for image in images[:2]] == [image["seed"] for image in images[2:]]

    def test_min_score_ignores_twins(self, run: Run) -> None:
        ran = run(*FOX, "-c", "0.5", "--compare", "--min-score", "100")
        assert "1 of 1 pictures score below" in ran.err

    def test_invalid_options(self, run: Run) -> None:
        assert "--compare needs CLIP guidance" in run(*FOX, "--compare").err
        assert "--compare and --keep exclude each other" in run(*FOX, "-c", "1", "--compare", "--keep", "1").err
        assert "is for one picture" in run(*FOX, "-c", "1", "--compare", "-o", "-").err

    def test_a_batch_with_twins(self, run: Run) -> None:
        Path("jobs.txt").write_text("a fox\n--prompt owl --guidance off\n")
        ran = run("batch", "jobs.txt", "--steps", "2", "-s", "1", "-c", "0.5", "--compare", "-o", "made/")
        assert [Path(path).name for path in ran.lines] == ["a-fox-1-unguided.png", "a-fox-1.png", "owl-1.png"]


class TestEarly:
    """Errors that are found before the model loads; this model has no weights."""

    @pytest.mark.parametrize(
        "words, code, message",
        [
            (["--like", "none.png:2"], 2, "'none.png' cannot be opened: No such file"),
            (["--guard", "two-key"], 2, "guard two-key needs a second CLIP"),
            (["--guidance", "steer+clip"], 2, "the gradient would have to enter the weights of the particles"),
            (["--guidance", "pick", "--guard", "two-key"], 2, "which has no gradient to veto"),
            (["--guidance", "optimise", "--guard", "off"], 2, "guard must be survival with guidance optimise"),
            (["--guidance", "clip", "--budget", "2"], 2, "budget must be left out if guidance is chosen by name"),
            ([], 2, "guidance 'clip' needs a CLIP, and model './light' has none"),
            (["--clip-model", "./nowhere"], 3, "There is no folder './nowhere'."),
            (["--clip-model", "org/name"], 3, "Model 'org/name' is not on this machine"),
        ],
    )
    def test_invalid_options(self, run: Run, light_model: str, words: list[str], code: int, message: str) -> None:
        ran = run("a fox", "-m", light_model, "-c", "0.5", *words)
        assert (ran.code, ran.out) == (code, "")
        assert message in ran.err
        assert len(ran.err.splitlines()) == 1

    def test_two_key_needs_two_clips(self, run: Run, light_model: str, siglip: str) -> None:
        ran = run("a fox", "-m", light_model, "-c", "0.5", "--guard", "two-key", "--clip-model", siglip)
        assert (ran.code, "needs two CLIPs" in ran.err) == (2, True)


def test_a_dry_run_prints_lists_and_switches(run: Run, light_model: str) -> None:
    words = ["--guide", "snow", "--guide", "dog:-0.5", "--no-through-unet", "-c", "0.3"]
    rows = {
        line.split("\t")[0]: line.split("\t")[1:] for line in run("a fox", "-m", light_model, *words, "--dry-run").lines
    }
    assert rows["guide"] == ["snow:1, dog:-0.5", "--guide"]
    assert rows["through_unet"] == ["false", "--no-through-unet"]
    assert rows["like"] == ["", "default"]
    assert rows["guidance"] == ["clip", "--clip-guidance-scale"]


@pytest.mark.usefixtures("model")
class TestBudget:
    def test_the_chosen_guidance_is_printed_once_before_the_image(self, run: Run) -> None:
        ran = run("a fox", "-s", "3", "--steps", "10", "--budget", "64x", "-n", "2")
        notes = [line for line in ran.err.splitlines() if "Budget" in line]
        assert len(notes) == 1
        assert notes[0].startswith("note: Budget 64x: guidance clip+pick")
        assert ran.err.index("Budget") < ran.err.index("seed ")
        assert read_settings(ran.lines[0]).settings.budget is None

    def test_a_budget_and_a_guidance_of_two_layers_are_one_choice(
        self, run: Run, light_model: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def rows(*words: str) -> dict[str, list[str]]:
            lines = run("a fox", "-m", light_model, "--dry-run", *words).lines
            return {line.split("\t")[0]: line.split("\t")[1:] for line in lines}

        monkeypatch.setenv("CLIPGEN_GUIDANCE", "clip")
        assert (rows("--budget", "2x")["budget"], rows("--budget", "2x")["guidance"]) == (
            ["2.0", "--budget"],
            ["off", "--budget"],
        )
        monkeypatch.delenv("CLIPGEN_GUIDANCE")
        monkeypatch.setenv("CLIPGEN_BUDGET", "2")
        assert rows()["budget"] == ["2.0", "CLIPGEN_BUDGET"]
        assert rows("--guidance", "pick")["budget"] == ["", "--guidance"]
        assert rows("-c", "0.5")["guidance"] == ["clip", "--clip-guidance-scale"]
        assert rows("-c", "0.5", "--budget", "3")["guidance"] == ["off", "--budget"]

    def test_the_twin_of_a_budget_is_unguided(self, run: Run) -> None:
        ran = run("a fox", "-s", "3", "--steps", "10", "--budget", "2", "--compare")
        twin, _ = ran.lines
        assert read_settings(twin).settings.guidance == "off"

    def test_particles_need_a_stochastic_scheduler(self, run: Run) -> None:
        ran = run("a fox", "--guidance", "steer")
        assert (ran.code, "'ddim' draws none. Works: ddpm, " in ran.err) == (2, True)
        ran = run("a fox", "--guidance", "optimise", "--steps", "5")
        assert (ran.code, "needs a model of 1-4 steps" in ran.err) == (2, True)
