"""Programs at the page: every named endpoint by gradio's own client, hostile bodies, hosts and origins over HTTP."""

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
from clipgen.ui.guard import MOST_UPLOAD, WRAPPING
from clipgen.ui.page import REFUSED
from gradio_client import Client, handle_file
from PIL import Image

from clipgen.image_file import digest_of, read_settings

from .conftest import Server

SMALL = {"steps": 2, "width": 64, "height": 64}
ENDPOINTS = {
    f"/{name}"
    for name in (
        *("generate", "compare", "info", "score", "rank", "classify", "caption", "explain"),
        *("presets", "models", "status"),
    )
}
pytestmark = pytest.mark.filterwarnings("default")  # the client's own


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        yield Client(server.url, verbose=False)


def events(client: Client, **values: Any) -> list[dict[str, Any]]:
    return list(client.submit(**{"prompt": "a fox in snow", **SMALL, **values}, api_name="/generate"))


def post(server: Server, path: str, body: bytes, **headers: str) -> int:
    request = urllib.request.Request(server.url + path, body, {"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def announce(server: Server, path: str, size: int) -> int:
    """Says how large a body will be and waits for the answer before sending any of it."""
    with closing(http.client.HTTPConnection(urllib.parse.urlsplit(server.url).netloc)) as connection:
        connection.putrequest("POST", f"/{path}")
        connection.putheader("content-type", "application/json")
        connection.putheader("content-length", str(size))
        connection.endheaders()
        return connection.getresponse().status


def get(server: Server, path: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(server.url + path, headers=headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_it_names_its_endpoints(client: Client) -> None:
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(named) == ENDPOINTS
    assert {"prompt", "seed", "clip_guidance_scale"} <= {
        each["parameter_name"] for each in named["/generate"]["parameters"]
    }


def test_generate_streams_and_the_file_has_the_bytes_that_were_saved(client: Client, server: Server) -> None:
    told = events(client, seed=5)
    assert [event["type"] for event in told if event["type"] != "loading"] == [
        "start",
        "step",
        "step",
        "image",
        "envelope",
    ]
    (image,) = (event for event in told if event["type"] == "image")
    assert digest_of(Path(image["file"])) == image["sha256"]
    assert image["sha256"] in {digest_of(path) for path in server.folder.rglob("*.png")}
    assert read_settings(image["file"]).settings.seed == 5


def test_compare_judges_three_arms(client: Client) -> None:
    told = list(client.submit(prompt="a fox in snow", **SMALL, seed=1, api_name="/compare"))
    assert [event["arm"].split()[0] for event in told if event["type"] == "image"] == ["unguided", "guided", "best"]
    assert [verdict["self_graded"] for verdict in told[-1]["data"]["verdicts"]] == [False] * 3  # the second CLIP judges


def test_the_dial_draws_five_arms(client: Client) -> None:
    told = list(client.submit(prompt="a fox in snow", **SMALL, seed=1, dial=True, api_name="/compare"))
    arms = [event["arm"] for event in told if event["type"] == "image"]
    assert arms == ["unguided", "quarter", "half", "guided", "double"]
    assert [verdict["against"] for verdict in told[-1]["data"]["verdicts"]] == ["unguided"] * 4


def test_the_small_ones_answer(client: Client) -> None:
    assert client.predict(api_name="/models") == ["storybook"]
    assert "pencil" in [preset["name"] for preset in client.predict(api_name="/presets")]
    assert client.predict(api_name="/status")["model"] == "storybook"


def test_clip_is_asked_about_an_upload(client: Client, server: Server) -> None:
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


def test_info_reads_an_upload_and_nothing_else(client: Client, server: Server, tmp_path: Path) -> None:
    events(client, seed=6)
    (picture,) = list(server.folder.rglob("*-6.png"))[:1]
    told = client.predict(handle_file(picture), api_name="/info")
    assert (told["source"], told["settings"]["seed"]) == ("clipgen", 6)
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    assert client.predict(handle_file(tmp_path / "plain.png"), api_name="/info")["error"]["code"] == "image-file-error"
    (tmp_path / "no.png").write_text("text")
    assert (
        "no readable PNG, JPEG or WebP"
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
def test_bad_values_are_refused_with_their_field(client: Client, values: dict[str, Any], field: str) -> None:
    envelope = events(client, **values)[-1]
    assert (envelope["ok"], envelope["error"]["field"]) == (False, field)


def crowd(server: Server, clients: int, jobs: int) -> Counter[str]:
    """Lets clients draw at once, each one picture after another, again where the line was full; returns what was told.

    Every job must give its own client its own picture. (A client's jobs share one stream, so they follow each other.)
    """
    told: Counter[str] = Counter()

    def job(mine: Client, seed: int) -> int:
        while True:
            heard = events(mine, steps=1, seed=seed)
            if heard[-1]["ok"]:
                (image,) = (event for event in heard if event["type"] == "image")
                assert digest_of(Path(image["file"])) == image["sha256"]
                return int(image["seed"])
            told[heard[-1]["error"]["message"]] += 1
            sleep(0.5)

    def visit(number: int) -> list[int]:
        mine = Client(server.url, verbose=False)
        return [job(mine, 100 * number + k) for k in range(jobs)]

    with ThreadPoolExecutor(clients) as visitors:
        got = list(visitors.map(visit, range(clients)))
    assert got == [[100 * number + k for k in range(jobs)] for number in range(clients)]
    return told


def test_sessions_get_their_own_pictures_and_a_full_line_says_so(server: Server) -> None:
    """With 20 clients of 5 jobs by CLIPGEN_TEST_CROWD=20x5; a few are enough to mix up what can be mixed up."""
    clients, jobs = map(int, os.environ.get("CLIPGEN_TEST_CROWD", "4x2").split("x"))
    assert set(crowd(server, clients, jobs)) <= {"The line is full: 16 jobs wait. Try again in a minute."}


def test_cancelling_a_job_frees_the_line(client: Client) -> None:
    job = client.submit(prompt="a fox in snow", steps=150, api_name="/generate")
    for event in job:
        if event["type"] == "step":
            break
    job.cancel()
    told = events(client)
    assert told[-1]["ok"]


def test_a_picture_that_is_too_large_is_refused_in_words(server: Server, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(bytes(MOST_UPLOAD + WRAPPING))
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n%b\r\n--x--\r\n'
    request = urllib.request.Request(
        f"{server.url}gradio_api/upload", form % large.read_bytes(), {"content-type": "multipart/form-data; boundary=x"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert (refused.value.code, refused.value.read()) == (413, b"A picture may have at most 10 MB.")


def test_hosts_origins_and_sizes(server: Server) -> None:
    join = "gradio_api/queue/join"
    assert get(server, "", Host="evil.example") == 421
    assert post(server, join, b"{}", Origin="http://evil.example") == 403
    assert post(server, "gradio_api/upload", b"", Origin="null") == 403
    assert post(server, join, b"{}", **{"Sec-Fetch-Site": "cross-site"}) == 403
    assert announce(server, join, 1_048_577) == 413
    assert get(server, "gradio_api/file=http://127.0.0.1/x") == 403
    assert [
        get(server, f"gradio_api/file={path}") for path in ("/etc/passwd", "../../etc/passwd", "pyproject.toml")
    ] == [403] * 3


RAW = [[], [None], [float("inf")] * 60, "text", None, [{"path": "/etc/passwd"}] * 60, [[1]] * 60, ["x"] * 60]


@pytest.mark.parametrize("data", RAW)
def test_raw_bodies_open_nothing_and_break_nothing(client: Client, server: Server, data: Any) -> None:
    for function in client.config["dependencies"]:
        body = {"data": data, "fn_index": function["id"], "session_hash": "raw", "trigger_id": None, "event_data": None}
        assert post(server, "gradio_api/queue/join", json.dumps(body).encode()) < 500
    assert client.predict(api_name="/status")["model"] == "storybook"  # behind all of them in the queue
    assert "root:" not in server.log.read_text()  # no file was opened
    assert "Traceback" not in server.log.read_text()


def test_streams_of_a_strange_session_and_overlapping_ones_end_quietly(client: Client, server: Server) -> None:
    assert get(server, "gradio_api/queue/data?session_hash=nobody") == 200
    jobs = [client.submit(prompt="a fox", steps=1, width=64, height=64, api_name="/generate") for _ in range(3)]
    assert [list(job)[-1]["type"] for job in jobs] == ["envelope"] * 3
    assert "Traceback" not in server.log.read_text()


def test_too_few_inputs_are_refused_in_words(server: Server) -> None:
    with urllib.request.urlopen(
        urllib.request.Request(
            f"{server.url}gradio_api/call/score", b'{"data": [null]}', {"content-type": "application/json"}
        )
    ) as joined:
        event = json.load(joined)["event_id"]
    with urllib.request.urlopen(f"{server.url}gradio_api/call/score/{event}") as answer:
        assert REFUSED in answer.read().decode()
    assert "Traceback" not in server.log.read_text()
