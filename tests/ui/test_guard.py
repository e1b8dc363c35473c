"""Who may talk to the page: hosts, origins and sizes, each clause by itself."""

from __future__ import annotations

import pytest
from clipgen.ui.guard import LOOPBACK, MOST_JSON, host_of, refusal

HERE = {"host": "127.0.0.1:7860"}
JOIN = "/gradio_api/queue/join"


@pytest.mark.parametrize(
    "header, name",
    [
        ("127.0.0.1:7860", "127.0.0.1"),
        ("LOCALHOST.", "localhost"),
        ("[::1]:80", "::1"),
        ("evil.example:7860", "evil.example"),
        ("", ""),
        ("[::1", ""),
        ("127.0.0.1@evil.example", "evil.example"),
    ],
)
def test_the_name_in_a_host_header(header: str, name: str) -> None:
    assert host_of(header) == name


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "192.168.1.5:7860", "localhost.evil.example"]
)
def test_strange_hosts_are_not_answered(host: str) -> None:
    assert refusal("GET", "/", {"host": host}, LOOPBACK, False) == (
        421,
        "This server does not answer to that name. Start it with --allow-host NAME.",
    )


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost", "[::1]:7860", "studio.lan:80"])
def test_known_hosts_are(host: str) -> None:
    assert refusal("GET", "/", {"host": host}, (*LOOPBACK, "studio.lan"), False) is None


def test_a_listening_page_answers_to_addresses_and_still_not_to_names() -> None:
    assert refusal("GET", "/", {"host": "192.168.1.5:7860"}, LOOPBACK, True) is None
    assert refusal("GET", "/", {"host": "rebound.example"}, LOOPBACK, True) is not None


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
@pytest.mark.parametrize(
    "method, path", [("POST", "/gradio_api/upload"), ("POST", JOIN), ("GET", JOIN), ("DELETE", "/x")]
)
def test_other_sites_change_nothing(method: str, path: str, headers: dict[str, str]) -> None:
    refused = refusal(method, path, {**HERE, **headers}, LOOPBACK, False)
    assert refused is not None
    assert refused[0] == 403


@pytest.mark.parametrize("headers", [{}, {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}])
def test_its_own_pages_and_programs_do(headers: dict[str, str]) -> None:
    assert refusal("POST", JOIN, {**HERE, **headers}, LOOPBACK, False) is None


@pytest.mark.parametrize("length", [str(MOST_JSON + 1), "-1", "many"])
def test_large_bodies_are_not_read(length: str) -> None:
    refused = refusal("POST", JOIN, {**HERE, "content-length": length}, LOOPBACK, False)
    assert refused == (413, "At most 1,048,576 bytes are read.")
    assert refusal("POST", "/gradio_api/upload", {**HERE, "content-length": "10000000"}, LOOPBACK, False) is None
    refused = refusal("POST", "/gradio_api/upload", {**HERE, "content-length": "11000000"}, LOOPBACK, False)
    assert refused == (413, "A picture may have at most 10 MB.")


def test_nothing_is_fetched_for_a_page() -> None:
    refused = refusal("GET", "/gradio_api/file=http://evil.example/x.png", HERE, LOOPBACK, False)
    assert refused == (403, "Nothing is fetched from elsewhere.")
