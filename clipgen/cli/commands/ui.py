"""`clipgen ui`: serves the browser interface on this machine or, with passwords, to others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from clipgen.cli import complete
from clipgen.cli.config_file import read_user
from clipgen.cli.execute import require_model
from clipgen.cli.numbers import whole
from clipgen.cli.output import Report
from clipgen.cli.resolve import absolute_model
from clipgen.errors import OutputError, SettingsError
from clipgen.pipeline import inputs

PAGE, NETWORK, MACHINE = "Page", "Other machines", "Machine"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def ui(
    port: Annotated[
        int,
        typer.Option("--port", metavar="N", help="The port.", rich_help_panel=PAGE, parser=whole("port", 1, 65535)),
    ] = 7860,
    open_: Annotated[
        bool, typer.Option("--open/--no-open", metavar="", help="Open the page in the browser.", rich_help_panel=PAGE)
    ] = True,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="The model.",
            rich_help_panel=PAGE,
            autocompletion=complete.models,
            show_default="storybook",
        ),
    ] = None,
    vae: Annotated[
        list[str] | None,
        typer.Option("--vae", metavar="NAME", help="A VAE that users may choose; repeatable.", rich_help_panel=PAGE),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="A folder or a template such as $seed.",
            rich_help_panel=PAGE,
            show_default="outputs/",
        ),
    ] = None,
    no_history: Annotated[
        bool,
        typer.Option("--no-history", metavar="", help="Do not add pictures to the history.", rich_help_panel=PAGE),
    ] = False,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="ADDRESS",
            help="The address; 0.0.0.0 for all machines.",
            rich_help_panel=NETWORK,
            show_default="127.0.0.1",
        ),
    ] = None,
    auth_file: Annotated[
        Path | None,
        typer.Option("--auth-file", metavar="FILE", help="Lines of NAME:PASSWORD.", rich_help_panel=NETWORK),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", metavar="", help="Serve other machines without passwords.", rich_help_panel=NETWORK),
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host", metavar="NAME", help="A host name of this server; repeatable.", rich_help_panel=NETWORK
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or mps.", rich_help_panel=MACHINE)
    ] = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype", metavar="NAME", help="auto, auto-fast, float32, float16 or bfloat16.", rich_help_panel=MACHINE
        ),
    ] = "auto",
) -> None:
    """Open clipgen in the browser.

    Has live previews, comparisons, a gallery, CLIP scores, and the settings inside any picture.

    clipgen ui
    clipgen ui --listen 0.0.0.0 --auth-file users.txt
    """
    with Report() as report:
        public = listen is not None and listen not in LOOPBACK
        users = read_users(auth_file) if auth_file else None
        if public and not users and not insecure:
            raise SettingsError("--listen needs --auth-file FILE, or --insecure to let everybody in", field="listen")
        name = absolute_model(model or read_user().settings.get("model", "storybook"))
        require_model(name, report, offline=True)
        vaes = tuple(map(absolute_model, vae or ()))
        for each in vaes:
            inputs.require_vae(each, offline=True)
        tables = read_user().tables
        config = {
            "vaes": vaes,
            "device": device,
            "dtype": dtype,
            "save_images": not public,
            "output": output or tables.get("output.path"),
            "history": not public and not no_history and tables.get("history.on", True),
            "public": public,
        }
        bind = {
            "address": listen or "127.0.0.1",
            "port": port,
            "allowed_hosts": tuple(allow_host or ()),
            "users": users,
        }
        _serve(name, config, bind, open_, report)


def _serve(model: str, config: dict[str, Any], bind: dict[str, Any], open_browser: bool, report: Report) -> None:
    """Starts the server and blocks until Ctrl-C; raises OutputError if the port is in use."""
    from clipgen.models import list_models
    from clipgen.settings.checks import LOCAL, SERVED
    from clipgen.ui.server import serve
    from clipgen.ui.server_config import BindConfig, ServerConfig

    models = tuple(dict.fromkeys([model, *(local.name for local in list_models())]))
    limits = SERVED if config["public"] else LOCAL
    try:
        server = serve(ServerConfig(models, limits, **config), BindConfig(**bind), open_browser and sys.stdout.isatty())
    except OSError as error:
        raise OutputError(
            f"Port {bind['port']} cannot be used ({error}). Choose another: --port 7861", field="port"
        ) from error
    report.result(server.url)
    report.say("Press Ctrl-C to stop the server.", "dim")
    server.wait()


def read_users(path: Path) -> tuple[tuple[str, str], ...]:
    """Returns the names and passwords in a file with lines of NAME:PASSWORD; raises SettingsError."""
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip() and not line.startswith("#")]
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"--auth-file '{path}' cannot be read: {error}", field="auth_file") from error
    pairs = [tuple(part.strip() for part in line.split(":", 1)) for line in lines]
    if not pairs or any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise SettingsError(f"--auth-file '{path}' must have lines of NAME:PASSWORD", field="auth_file")
    return tuple((name, password) for name, password in pairs)
