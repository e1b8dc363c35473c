"""ASGI middleware that refuses requests from other sites, for unknown hosts, and with bodies that are too large."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
MAX_JSON = 1_048_576  # bytes of a body that is not an upload
MAX_UPLOAD = 10 * 2**20  # bytes of an uploaded file
MAX_DRAINED = 10 * MAX_UPLOAD  # bytes of a refused upload that are received and dropped
FORM_OVERHEAD = 65_536  # bytes that multipart/form-data may add to a file
UPLOAD_PATH = "/gradio_api/upload"
PROXY_PATH = "/gradio_api/file=http"
JOIN_PATH = "/gradio_api/queue/join"
STREAM_PATH = "/gradio_api/queue/data"
UPLOAD_TOO_LARGE = f"A picture may have at most {MAX_UPLOAD // 2**20} MB."


def host_name(header: str) -> str:
    """Returns the name in a Host header in lower case, without port and trailing dot; "" if there is none."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower().removesuffix(".")
    except ValueError:
        return ""


def refusal(
    method: str, path: str, headers: dict[str, str], hosts: Iterable[str], any_address: bool
) -> tuple[int, str] | None:
    """Returns HTTP status and message for a request that must be refused, None for one that is accepted.

    An unknown Host header means DNS rebinding; a foreign Origin means that the page of another site sent the request.

    Args:
        method: HTTP method.
        path: Path of the URL.
        headers: Names in lower case.
        hosts: Accepted names in the Host header.
        any_address: Whether every numeric address is accepted as Host, which DNS rebinding cannot forge.
    """
    host = headers.get("host", "")
    name = host_name(host)
    if name not in hosts and not (any_address and _is_address(name)):
        return 421, "This server does not answer to that host name. Start it with --allow-host NAME."
    if method in SAFE_METHODS and not path.startswith(JOIN_PATH):
        return (403, "This server fetches nothing from other hosts.") if path.startswith(PROXY_PATH) else None
    origin = headers.get("origin")
    foreign_origin = origin is not None and origin not in (f"http://{host}", f"https://{host}")
    if foreign_origin or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return 403, "Requests from other sites are refused."
    length = headers.get("content-length", "0")
    is_upload = path.startswith(UPLOAD_PATH)
    if not (length.isdecimal() and int(length) <= (MAX_UPLOAD + FORM_OVERHEAD if is_upload else MAX_JSON)):
        return 413, UPLOAD_TOO_LARGE if is_upload else f"A request may have at most {MAX_JSON:,} bytes."
    return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class RequestFilter:
    """ASGI middleware in front of every route; see `refusal`."""

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...], any_address: bool = False) -> None:
        self.app = app
        self.hosts = (*LOOPBACK, *(host.lower() for host in hosts))
        self.any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses a request, or passes it on to Gradio."""
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refused = refusal(scope["method"], scope["path"], headers, self.hosts, self.any_address)
        if refused:
            status, message = refused
            if message == UPLOAD_TOO_LARGE:
                await _drain(receive)
            await PlainTextResponse(message, status)(scope, receive, send)
            return
        limited = receive if scope["path"].startswith(UPLOAD_PATH) else _limit(receive)
        try:
            await self.app(scope, limited, send)
        except (LookupError, RuntimeError):  # gradio: the session is unknown, or two of its streams overlap
            if not scope["path"].startswith(STREAM_PATH):
                raise
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(receive: Receive) -> None:
    """Receives a refused upload and drops it: a browser that is still sending does not read the response."""
    received, more = 0, True
    while more and received < MAX_DRAINED:
        message = await receive()
        received, more = received + len(message.get("body", b"")), bool(message.get("more_body"))


def _limit(receive: Receive) -> Receive:
    """Returns a `receive` that truncates a body without Content-Length at MAX_JSON; what remains is invalid JSON."""
    received = 0

    async def limited() -> Any:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        return message if received <= MAX_JSON else {"type": "http.request", "body": b"", "more_body": False}

    return limited
