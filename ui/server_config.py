"""What `clipgen ui` is started with: which models it offers, what it saves, and where it listens."""

from __future__ import annotations

from dataclasses import dataclass

from clipgen.settings.checks import Limits


@dataclass(frozen=True)
class ServerConfig:
    """What the server offers and what it saves.

    Args:
        models: Names of the models that users may choose; the first one is loaded at the start.
        vaes: Names of VAEs that users may choose besides hub ids on this machine.
        limits: The largest settings that a request may ask for.
        device: "auto", "cpu", "cuda" or "mps".
        dtype: "auto" or the name of a torch dtype.
        save_images: Whether images are saved to `output`; otherwise they exist only in the image store.
        output: Folder or file name template, None for the default one.
        history: Whether saved images are recorded in history.db.
        public: Whether the server accepts connections from other machines.
    """

    models: tuple[str, ...]
    limits: Limits
    vaes: tuple[str, ...] = ()
    device: str = "auto"
    dtype: str = "auto"
    save_images: bool = True
    output: str | None = None
    history: bool = False
    public: bool = False


@dataclass(frozen=True)
class BindConfig:
    """Where the server listens and who may log in.

    Args:
        address: IP address to listen on.
        port: TCP port, None for any free one.
        allowed_hosts: Values of the HTTP Host header that are accepted besides localhost.
        users: Names and passwords, None for no login.
    """

    address: str = "127.0.0.1"
    port: int | None = 7860
    allowed_hosts: tuple[str, ...] = ()
    users: tuple[tuple[str, str], ...] | None = None
