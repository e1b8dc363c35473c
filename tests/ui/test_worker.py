"""The worker without a browser: what it generates, what it refuses, and how its jobs are cancelled."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from clipgen.ui.html import output_panel
from clipgen.ui.image_info import ImageInfo
from clipgen.ui.image_store import ImageStore
from clipgen.ui.job_events import FinishedImage, JobStopped, Loading, Waiting
from clipgen.ui.queue import QueueFull
from clipgen.ui.server_config import ServerConfig
from clipgen.ui.tabs.actions import local_paths
from clipgen.ui.worker import Worker

from clipgen import history
from clipgen.compare import BEST_OF_N
from clipgen.errors import ClipgenError, SettingsError
from clipgen.hashing import sha256_of
from clipgen.image_file import read_settings
from clipgen.pipeline.result import Step
from clipgen.settings.checks import LOCAL, SERVED

FOX = {"prompt": "a fox", "steps": 2}


def generate(worker: Worker, session: str = "session", **values: Any) -> list[Any]:
    return list(worker.generate(worker.build_settings({**FOX, **values}), session))


def images(worker: Worker, **values: Any) -> list[FinishedImage]:
    return [event for event in generate(worker, **values) if isinstance(event, FinishedImage)]


def test_images_are_in_the_image_store_with_their_settings_inside(worker: Worker, image_store: ImageStore) -> None:
    events = generate(worker, seed=7, images=2)
    finished = [event for event in events if isinstance(event, FinishedImage)]
    assert [image.result.seed for image in finished] == [7, 8]
    assert all(image_store.contains(str(image.path)) and image.saved_path is None for image in finished)
    assert read_settings(finished[0].path).settings.seed == 7
    assert sum(isinstance(event, Step) for event in events) == 4


def test_a_local_server_saves_images_and_history(tiny_v: Path, image_store: ImageStore, tmp_path: Path) -> None:
    config = ServerConfig((str(tiny_v),), LOCAL, device="cpu", output=str(tmp_path / "pictures"), history=True)
    (image,) = images(Worker(config, image_store), seed=1)
    assert image.saved_path is not None
    assert sha256_of(image.saved_path) == sha256_of(image.path)
    assert history.find(["fox"])[0].path == image.saved_path


def test_a_vae_of_the_server_may_be_a_file(tiny_v: Path, image_store: ImageStore) -> None:
    worker = Worker(ServerConfig((str(tiny_v),), SERVED, vaes=("/vaes/soft.safetensors",)), image_store)
    assert worker.build_settings({"prompt": "a", "vae": "/vaes/soft.safetensors"}).vae == "/vaes/soft.safetensors"
    with pytest.raises(SettingsError, match=r"vae must be a hub id on this machine, got '/vaes/other\.safetensors'"):
        worker.build_settings({"prompt": "a", "vae": "/vaes/other.safetensors"})


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
        ({"lora": ["/etc/x.safetensors"]}, "lora"),
        ({"lora": ["x.safetensors:0.5"]}, "lora"),
        ({"lora": ["missing"]}, "lora"),
        ({"prompt": "a fox <lora:missing:1>"}, "lora"),
        ({"embedding": ["../x"]}, "embedding"),
        ({"vae": "/etc"}, "vae"),
        ({"vae": "vae.safetensors"}, "vae"),
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
def test_a_public_server_refuses_these_values(worker: Worker, values: dict[str, Any], field: str) -> None:
    with pytest.raises(ClipgenError) as error:
        worker.build_settings({**FOX, **values})
    assert error.value.field == field


def test_the_default_size_of_a_model_must_be_within_the_limits_too(tiny_v: Path, image_store: ImageStore) -> None:
    config = ServerConfig((str(tiny_v),), replace(SERVED, pixels=64), device="cpu", save_images=False)
    with pytest.raises(SettingsError, match="width x height must be at most 64"):
        generate(Worker(config, image_store))


def test_cancel_ends_a_job_within_one_step(worker: Worker) -> None:
    steps = 0
    for event in worker.generate(worker.build_settings({**FOX, "steps": 100}), "session"):
        if isinstance(event, Step):
            steps += 1
            if steps == 5:
                worker.cancel("session")
    assert (steps, isinstance(event, JobStopped)) == (5, True)
    assert len(images(worker)) == 1


def test_cancel_acts_inside_a_step_with_many_candidates(worker: Worker) -> None:
    settings = worker.build_settings({**FOX, "steps": 20, "guidance": "pick", "candidates": 16})
    job = worker.generate(settings, "session")
    while not isinstance(next(job), Step):
        pass
    worker.cancel("session")
    assert list(job) == [JobStopped()]


def test_a_guidance_image_must_be_in_the_image_store(worker: Worker, tmp_path: Path) -> None:
    (image,) = images(worker, seed=2)
    (guided,) = images(worker, seed=3, guidance="clip", like=[f"{image.path}:0.5"])
    assert read_settings(guided.path).settings.like == (f"./{image.path.name}:0.5",)
    elsewhere = tmp_path / "elsewhere.png"
    elsewhere.write_bytes(image.path.read_bytes())
    with pytest.raises(SettingsError, match="not one that was uploaded here"):
        worker.build_settings({**FOX, "like": [str(elsewhere)]})


@pytest.fixture(scope="module")
def varying(tmp_path_factory: pytest.TempPathFactory, image_store: ImageStore) -> Worker:
    """A worker whose model generates variations of an image."""
    model = str(tiny.save_varying(tmp_path_factory.mktemp("models") / "tiny-varying"))
    return Worker(ServerConfig((model,), SERVED, device="cpu", save_images=False, public=True), image_store)


def test_a_variation_says_what_it_is_made_from(varying: Worker) -> None:
    (source,) = images(varying, seed=2)
    assert varying.supports_variations
    (variation,) = images(varying, prompt="", vary=f"{source.path}:1", seed=3)
    info = ImageInfo.from_job(variation)
    assert f"variation of {source.path.stem}" in output_panel.finished(info)
    assert "to the original picture" in output_panel.finished(info)
    assert local_paths(info.to_settings(), varying).vary == f"{source.path.name}:1"


def test_the_source_of_a_variation_must_be_in_the_image_store(varying: Worker, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.png"
    elsewhere.write_bytes(images(varying, seed=2)[0].path.read_bytes())
    with pytest.raises(SettingsError, match="vary: The picture is not one that was uploaded here"):
        varying.build_settings({**FOX, "vary": str(elsewhere)})


def test_the_model_must_support_variations(worker: Worker) -> None:
    (source,) = images(worker, seed=2)
    assert not worker.supports_variations
    with pytest.raises(SettingsError, match="variations"):
        generate(worker, vary=str(source.path))


def test_a_comparison_needs_a_prompt(varying: Worker) -> None:
    (source,) = images(varying, seed=2)
    settings = varying.build_settings({"prompt": "", "vary": f"{source.path}:1"})
    with pytest.raises(SettingsError, match="prompt must not be empty"):
        list(varying.compare(settings, None, BEST_OF_N, "session"))


def test_the_load_percentage_never_decreases(tiny_v: Path, image_store: ImageStore) -> None:
    worker = Worker(ServerConfig((str(tiny_v),), SERVED, device="cpu", save_images=False), image_store)
    percents = [event.percent for event in generate(worker) if isinstance(event, Loading)]
    assert percents == sorted(percents)
    assert 0 <= percents[0] <= percents[-1] <= 100
    assert worker.load_percent == 99


def test_closing_a_job_removes_it_from_the_queue(worker: Worker) -> None:
    job = worker.generate(worker.build_settings(FOX), "session")
    next(job)
    assert len(worker.queue) == 1
    job.close()  # type: ignore[attr-defined]
    assert len(worker.queue) == 0


def test_waiting_jobs_know_their_position_and_can_be_cancelled(worker: Worker) -> None:
    first = worker.generate(worker.build_settings(FOX), "a")
    next(first)
    second = worker.generate(worker.build_settings(FOX), "b")
    assert next(second) == Waiting(1)
    worker.cancel("b")
    assert list(second)[-1] == JobStopped()
    assert isinstance(list(first)[-1], FinishedImage)


def test_twenty_sessions_each_get_their_own_images(worker: Worker) -> None:
    """A session that finds the queue full tries again; no image is lost or goes to another session."""
    seeds: dict[int, list[int]] = {}
    refusals: list[str] = []

    def run_session(number: int) -> None:
        own: list[int] = []
        for job in range(5):
            while True:
                try:
                    events = generate(
                        worker, f"session {number}", seed=100 * number + job, steps=1, width=64, height=64
                    )
                except QueueFull as error:
                    refusals.append(str(error))
                    threading.Event().wait(0.01)
                    continue
                own += [event.result.seed for event in events if isinstance(event, FinishedImage)]
                break
        seeds[number] = own

    threads = [threading.Thread(target=run_session, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seeds == {number: [100 * number + job for job in range(5)] for number in range(20)}
    assert set(refusals) == {"The queue is full: 3 jobs are waiting. Try again in a minute."}
