"""Requests that the middleware refuses: by Host header, by origin and by size."""

from __future__ import annotations

import pytest
from clipgen.ui.middleware import LOOPBACK, MAX_JSON, host_name, refusal

LOCALHOST = {"host": "127.0.0.1:7860"}
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
def test_host_name_of_a_host_header(header: str, name: str) -> None:
    assert host_name(header) == name


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "192.168.1.5:7860", "localhost.evil.example"]
)
def test_unknown_hosts_are_refused(host: str) -> None:
    assert refusal("GET", "/", {"host": host}, LOOPBACK, False) == (
        421,
        "This server does not answer to that host name. Start it with --allow-host NAME.",
    )


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost", "[::1]:7860", "studio.lan:80"])
def test_known_hosts_are_accepted(host: str) -> None:
    assert refusal("GET", "/", {"host": host}, (*LOOPBACK, "studio.lan"), False) is None


def test_a_public_server_accepts_addresses_and_no_unknown_names() -> None:
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
def test_requests_of_other_sites_are_refused(method: str, path: str, headers: dict[str, str]) -> None:
    refused = refusal(method, path, {**LOCALHOST, **headers}, LOOPBACK, False)
    assert refused is not None
    assert refused[0] == 403


@pytest.mark.parametrize("headers", [{}, {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}])
def test_requests_of_the_page_and_of_programs_are_accepted(headers: dict[str, str]) -> None:
    assert refusal("POST", JOIN, {**LOCALHOST, **headers}, LOOPBACK, False) is None


@pytest.mark.parametrize("length", [str(MAX_JSON + 1), "-1", "many"])
def test_large_bodies_are_refused(length: str) -> None:
    refused = refusal("POST", JOIN, {**LOCALHOST, "content-length": length}, LOOPBACK, False)
    assert refused == (413, "A request may have at most 1,048,576 bytes.")
    assert refusal("POST", "/gradio_api/upload", {**LOCALHOST, "content-length": "10000000"}, LOOPBACK, False) is None
    refused = refusal("POST", "/gradio_api/upload", {**LOCALHOST, "content-length": "11000000"}, LOOPBACK, False)
    assert refused == (413, "A picture may have at most 10 MB.")


def test_files_of_other_hosts_are_not_fetched() -> None:
    refused = refusal("GET", "/gradio_api/file=http://evil.example/x.png", LOCALHOST, LOOPBACK, False)
    assert refused == (403, "This server fetches nothing from other hosts.")
