"""Who may talk to the page: its own pages and programs on hosts it knows, with bodies of a sane size."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SAFE = ("GET", "HEAD", "OPTIONS")
MOST_JSON = 1_048_576  # bytes of a body that is no upload
MOST_UPLOAD = 10 * 2**20  # bytes of a picture
MOST_DRAINED = 10 * MOST_UPLOAD  # bytes
WRAPPING = 65_536  # bytes that a form may add to it
UPLOAD = "/gradio_api/upload"
PROXIED = "/gradio_api/file=http"
TOO_LARGE = f"A picture may have at most {MOST_UPLOAD // 2**20} MB."
JOINS = "/gradio_api/queue/join"
STREAM = "/gradio_api/queue/data"


def host_of(header: str) -> str:
    """Returns the name in a Host header, lower case, without port and one trailing dot; "" for none."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower().removesuffix(".")
    except ValueError:
        return ""


def refusal(
    method: str, path: str, headers: dict[str, str], hosts: Iterable[str], any_address: bool
) -> tuple[int, str] | None:
    """Returns status and words for a request that is not served, None for one that is.

    An unknown Host is DNS rebinding, an Origin other than the page's own is another site's page. `any_address` takes
    every numeric address as Host, which no rebinding can bring.
    """
    host = headers.get("host", "")
    name = host_of(host)
    if name not in hosts and not (any_address and _is_address(name)):
        return 421, "This server does not answer to that name. Start it with --allow-host NAME."
    if method in SAFE and not path.startswith(JOINS):
        return (403, "Nothing is fetched from elsewhere.") if path.startswith(PROXIED) else None
    origin = headers.get("origin")
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        return 403, "Requests from other sites are not served."
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return 403, "Requests from other sites are not served."
    length = headers.get("content-length", "0")
    uploads = path.startswith(UPLOAD)
    if not (length.isdecimal() and int(length) <= (MOST_UPLOAD + WRAPPING if uploads else MOST_JSON)):
        return 413, TOO_LARGE if uploads else f"At most {MOST_JSON:,} bytes are read."
    return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """ASGI middleware in front of every route."""

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...], any_address: bool = False) -> None:
        self.app = app
        self.hosts = (*LOOPBACK, *(host.lower() for host in hosts))
        self.any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses a request, or hands it on."""
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refused = refusal(scope["method"], scope["path"], headers, self.hosts, self.any_address)
        if refused:
            if refused[1] == TOO_LARGE:
                await _drain(receive)
            await PlainTextResponse(refused[1], refused[0])(scope, receive, send)
            return
        limited = receive if scope["path"].startswith(UPLOAD) else _counted(receive)
        try:
            await self.app(scope, limited, send)
        except (LookupError, RuntimeError):  # gradio lost a session that is unknown, or whose streams overlap
            if not scope["path"].startswith(STREAM):
                raise
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drain(receive: Receive) -> None:
    """Lets a body that is somewhat too large come in and drops it: who is cut off while sending reads no answer."""
    taken, more = 0, True
    while more and taken < MOST_DRAINED:
        message = await receive()
        taken, more = taken + len(message.get("body", b"")), bool(message.get("more_body"))


def _counted(receive: Receive) -> Receive:
    """Returns a `receive` that cuts a body without a length where it becomes too long; what is left is broken JSON."""
    taken = 0

    async def counted() -> Any:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        return message if taken <= MOST_JSON else {"type": "http.request", "body": b"", "more_body": False}

    return counted
