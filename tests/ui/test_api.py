"""The API over HTTP: every named endpoint with gradio_client, malformed bodies, foreign hosts and origins."""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from clipgen.ui.middleware import FORM_OVERHEAD, MAX_UPLOAD
from clipgen.ui.page import BAD_INPUTS
from gradio_client import Client, handle_file
from PIL import Image

from clipgen.hashing import sha256_of
from clipgen.image_file import read_settings

from .conftest import RunningServer

SMALL = {"steps": 2, "width": 128, "height": 128}
ENDPOINTS = {
    f"/{name}"
    for name in (
        *("generate", "compare", "info", "score", "rank", "classify", "caption", "explain"),
        *("presets", "models", "status"),
    )
}
pytestmark = pytest.mark.filterwarnings("default")  # gradio_client raises some itself


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[Client]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        yield Client(server.url, verbose=False)


def events(client: Client, **values: Any) -> list[dict[str, Any]]:
    return list(client.submit(**{"prompt": "a fox in snow", **SMALL, **values}, api_name="/generate"))


def post(server: RunningServer, path: str, body: bytes, **headers: str) -> int:
    request = urllib.request.Request(server.url + path, body, {"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def post_headers(server: RunningServer, path: str, size: int) -> int:
    """Sends the headers of a request with a body of `size` bytes and returns the status without sending the body."""
    with closing(http.client.HTTPConnection(urllib.parse.urlsplit(server.url).netloc)) as connection:
        connection.putrequest("POST", f"/{path}")
        connection.putheader("content-type", "application/json")
        connection.putheader("content-length", str(size))
        connection.endheaders()
        return connection.getresponse().status


def get(server: RunningServer, path: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(server.url + path, headers=headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_named_endpoints(client: Client) -> None:
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(named) == ENDPOINTS
    assert {"prompt", "seed", "clip_guidance_scale"} <= {
        each["parameter_name"] for each in named["/generate"]["parameters"]
    }


def test_generate_streams_events_and_the_file_equals_the_saved_image(client: Client, server: RunningServer) -> None:
    job = events(client, seed=5)
    assert [event["type"] for event in job if event["type"] != "loading"] == [
        "start",
        "step",
        "step",
        "image",
        "envelope",
    ]
    (image,) = (event for event in job if event["type"] == "image")
    assert sha256_of(Path(image["file"])) == image["sha256"]
    assert image["sha256"] in {sha256_of(path) for path in server.folder.rglob("*.png")}
    assert read_settings(image["file"]).settings.seed == 5


def test_compare_scores_three_variants(client: Client) -> None:
    job = list(client.submit(prompt="a fox in snow", **SMALL, seed=1, api_name="/compare"))
    assert [event["variant"].split()[0] for event in job if event["type"] == "image"] == ["unguided", "guided", "best"]
    assert [verdict["self_graded"] for verdict in job[-1]["data"]["verdicts"]] == [
        False
    ] * 3  # storybook has its own judge


def test_compare_with_dial_generates_five_variants(client: Client) -> None:
    job = list(client.submit(prompt="a fox in snow", **SMALL, seed=1, dial=True, api_name="/compare"))
    variants = [event["variant"] for event in job if event["type"] == "image"]
    assert variants == ["unguided", "quarter", "half", "guided", "double"]
    assert [verdict["against"] for verdict in job[-1]["data"]["verdicts"]] == ["unguided"] * 4


def test_models_presets_and_status(client: Client) -> None:
    assert client.predict(api_name="/models") == ["storybook"]
    assert "pencil" in [preset["name"] for preset in client.predict(api_name="/presets")]
    assert client.predict(api_name="/status")["model"] == "storybook"


def test_clip_endpoints_with_an_upload(client: Client, server: RunningServer) -> None:
    events(client, seed=8)
    picture = handle_file(next(server.folder.rglob("*-8.png")))
    assert client.predict(picture, "a fox in snow", api_name="/score")["clip"]["captions"] > 500
    labels = client.predict(picture, "fox, owl", api_name="/classify")["labels"]
    assert {label["label"] for label in labels} == {"fox", "owl"}
    assert client.predict(picture, "", api_name="/explain")["source"] == "cross-attention"
    assert client.predict(picture, "fox", api_name="/classify")["error"]["field"] == "labels"
    ranked = client.predict([picture, picture], "a fox in snow", api_name="/rank")["pictures"]
    assert sorted(each["index"] for each in ranked) == [0, 1]
    assert ranked[0]["clip"]["captions"] > 500
    assert client.predict([], "a fox", api_name="/rank")["error"]["field"] == "pictures"
    assert client.predict(picture, api_name="/caption")["caption"].endswith("in snow")


def test_info_reads_uploads_only(client: Client, server: RunningServer, tmp_path: Path) -> None:
    events(client, seed=6)
    (picture,) = list(server.folder.rglob("*-6.png"))[:1]
    info = client.predict(handle_file(picture), api_name="/info")
    assert (info["source"], info["settings"]["seed"]) == ("clipgen", 6)
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    assert client.predict(handle_file(tmp_path / "plain.png"), api_name="/info")["error"]["code"] == "image-file-error"
    (tmp_path / "no.png").write_text("text")
    assert (
        "not a readable PNG, JPEG or WebP"
        in client.predict(handle_file(tmp_path / "no.png"), api_name="/info")["error"]["message"]
    )
    for reference in ({"path": "/etc/passwd"}, {"path": "/etc/passwd", "meta": {"no": 1}}, {}):
        assert "upload" in client.predict(reference, api_name="/info")["error"]["message"]


@pytest.mark.parametrize(
    "values, field",
    [
        ({"steps": 0}, "steps"),
        ({"steps": [2]}, "steps"),
        ({"steps": "many"}, "steps"),
        ({"prompt": "x" * 1_000_000}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"seed": -1}, "seed"),
        ({"model": "/etc/passwd"}, "model"),
        ({"like": ["/etc/passwd"]}, "like"),
        ({"vary": "/etc/passwd"}, "vary"),
        ({"guidance_scale": 1e300}, "guidance_scale"),
    ],
)
def test_an_invalid_value_is_refused_with_its_field(client: Client, values: dict[str, Any], field: str) -> None:
    envelope = events(client, **values)[-1]
    assert (envelope["ok"], envelope["error"]["field"]) == (False, field)


def run_clients(server: RunningServer, clients: int, jobs: int) -> Counter[str]:
    """Runs clients in parallel, each with several jobs in sequence; returns how often which error message came.

    A job that finds the queue full is tried again. Every client must get exactly its own images. (The jobs of one
    client share one stream, so they cannot run in parallel.)
    """
    refusals: Counter[str] = Counter()

    def run_job(client: Client, seed: int) -> int:
        while True:
            job = events(client, steps=1, seed=seed)
            if job[-1]["ok"]:
                (image,) = (event for event in job if event["type"] == "image")
                assert sha256_of(Path(image["file"])) == image["sha256"]
                return int(image["seed"])
            refusals[job[-1]["error"]["message"]] += 1
            sleep(0.5)

    def run_client(number: int) -> list[int]:
        client = Client(server.url, verbose=False)
        return [run_job(client, 100 * number + k) for k in range(jobs)]

    with ThreadPoolExecutor(clients) as pool:
        seeds = list(pool.map(run_client, range(clients)))
    assert seeds == [[100 * number + k for k in range(jobs)] for number in range(clients)]
    return refusals


def test_clients_get_their_own_images_and_a_full_queue_is_reported(server: RunningServer) -> None:
    """CLIPGEN_TEST_CLIENTS=20x5 runs 20 clients with 5 jobs each; a few already find images that are mixed up."""
    clients, jobs = map(int, os.environ.get("CLIPGEN_TEST_CLIENTS", "4x2").split("x"))
    assert set(run_clients(server, clients, jobs)) <= {"The queue is full: 16 jobs are waiting. Try again in a minute."}


def test_cancelling_a_job_removes_it_from_the_queue(client: Client) -> None:
    job = client.submit(prompt="a fox in snow", steps=150, api_name="/generate")
    for event in job:
        if event["type"] == "step":
            break
    job.cancel()
    assert events(client)[-1]["ok"]


def test_an_upload_that_is_too_large_is_refused_with_a_message(server: RunningServer, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(bytes(MAX_UPLOAD + FORM_OVERHEAD))
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n%b\r\n--x--\r\n'
    request = urllib.request.Request(
        f"{server.url}gradio_api/upload", form % large.read_bytes(), {"content-type": "multipart/form-data; boundary=x"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert (refused.value.code, refused.value.read()) == (413, b"A picture may have at most 10 MB.")


def test_foreign_hosts_origins_and_large_bodies_are_refused(server: RunningServer) -> None:
    join = "gradio_api/queue/join"
    assert get(server, "", Host="evil.example") == 421
    assert post(server, join, b"{}", Origin="http://evil.example") == 403
    assert post(server, "gradio_api/upload", b"", Origin="null") == 403
    assert post(server, join, b"{}", **{"Sec-Fetch-Site": "cross-site"}) == 403
    assert post_headers(server, join, 1_048_577) == 413
    assert get(server, "gradio_api/file=http://127.0.0.1/x") == 403
    assert [
        get(server, f"gradio_api/file={path}") for path in ("/etc/passwd", "../../etc/passwd", "pyproject.toml")
    ] == [403] * 3


BODIES = [[], [None], [float("inf")] * 60, "text", None, [{"path": "/etc/passwd"}] * 60, [[1]] * 60, ["x"] * 60]


@pytest.mark.parametrize("data", BODIES)
def test_malformed_bodies_open_no_file_and_cause_no_traceback(client: Client, server: RunningServer, data: Any) -> None:
    for function in client.config["dependencies"]:
        body = {"data": data, "fn_index": function["id"], "session_hash": "raw", "trigger_id": None, "event_data": None}
        assert post(server, "gradio_api/queue/join", json.dumps(body).encode()) < 500
    assert client.predict(api_name="/status")["model"] == "storybook"  # runs after all of them
    assert "root:" not in server.log.read_text()  # no file was opened
    assert "Traceback" not in server.log.read_text()


def test_streams_of_unknown_sessions_and_overlapping_streams_cause_no_traceback(
    client: Client, server: RunningServer
) -> None:
    assert get(server, "gradio_api/queue/data?session_hash=nobody") == 200
    jobs = [client.submit(prompt="a fox", steps=1, width=128, height=128, api_name="/generate") for _ in range(3)]
    assert [list(job)[-1]["type"] for job in jobs] == ["envelope"] * 3
    assert "Traceback" not in server.log.read_text()


def test_too_few_inputs_are_refused_with_a_message(server: RunningServer) -> None:
    with urllib.request.urlopen(
        urllib.request.Request(
            f"{server.url}gradio_api/call/score", b'{"data": [null]}', {"content-type": "application/json"}
        )
    ) as joined:
        event = json.load(joined)["event_id"]
    with urllib.request.urlopen(f"{server.url}gradio_api/call/score/{event}") as answer:
        assert BAD_INPUTS in answer.read().decode()
    assert "Traceback" not in server.log.read_text()
