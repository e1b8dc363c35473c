"""Downloads from a small hub on this machine: what is fetched, what is refused before, and the errors."""

from __future__ import annotations

import errno
import json
import shutil
import socket
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hub_cache import REVISION, hub_cache  # noqa: F401 - a fixture
from single_files import save_single_file

from clipgen.errors import ModelError, ModelNotFound
from clipgen.families import LAYOUTS
from clipgen.families.fetch import fetch_any, fetch_model
from clipgen.models import ModelId, find_model, parse_id, preflight
from clipgen.models import hub as hub_module
from clipgen.models.find import find_clip, find_vae
from clipgen.models.hub_files import model_files, network_files, tokenizer_files
from clipgen.models.preflight import check_index

CONNECT = socket.socket.connect
CODES = {
    "gated": (403, "GatedRepo"),
    "missing": (404, "RepoNotFound"),
    "busy": (503, ""),
    "branch": (404, "RevisionNotFound"),
}


class Hub(ThreadingHTTPServer):
    """Serves folders as repositories; `fetched` are the files that were downloaded, by repository."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Path] = {}
        self.fetched: dict[str, list[str]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """The four requests that huggingface_hub makes for a download."""

    server: Hub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            self._api("/".join(parts[2:4]), "tree" in parts)
        else:
            self._file("/".join(parts[:2]), path.partition("/resolve/")[2])

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _api(self, name: str, is_tree: bool) -> None:
        if name.startswith("slow/"):
            sleep(0.5)
        if name not in self.server.repositories:
            status, code = CODES.get(name.partition("/")[0], (404, "RepoNotFound"))
            self._answer(status, b"{}", {"X-Error-Code": code})
            return
        folder = self.server.repositories[name]
        files = {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
        answer: Any = {
            "id": name,
            "modelId": name,
            "sha": REVISION,
            "siblings": [{"rfilename": file, "size": size} for file, size in files.items()],
        }
        if is_tree:
            answer = [{"type": "file", "path": f, "size": size, "oid": "0" * 40} for f, size in files.items()]
        self._answer(200, json.dumps(answer).encode())

    def _file(self, name: str, rest: str) -> None:
        file = next(
            rest.removeprefix(f"{each}/") for each in (REVISION, "main", "refs/pr/1") if rest.startswith(f"{each}/")
        )
        data = (self.server.repositories[name] / file).read_bytes()
        if self.command == "GET":
            self.server.fetched.setdefault(name, []).append(file)
        self._answer(200, data, {"ETag": f'"{hash(data) & 2**64 - 1:x}"', "X-Repo-Commit": REVISION})

    def _answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every connection except to this machine an error."""

    def connect(self: socket.socket, address: Any) -> None:
        assert address[0] == "127.0.0.1", f"a test connects to {address}"
        CONNECT(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, hub_cache: Path) -> Iterator[Hub]:  # noqa: F811
    """A hub that this process uses, and an empty cache."""
    from huggingface_hub import constants

    with Hub() as server:
        Thread(target=partial(server.serve_forever, poll_interval=0.05), daemon=True).start()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield server
        server.shutdown()


@pytest.fixture
def repository(tiny_epsilon: Path, tmp_path: Path) -> Path:
    """A model folder with files that are not needed."""
    folder = tmp_path / "repository"
    shutil.copytree(tiny_epsilon, folder)
    shutil.copy(
        folder / "unet" / "diffusion_pytorch_model.safetensors",
        folder / "unet" / "diffusion_pytorch_model.fp16.safetensors",
    )
    for name in (
        "README.md",
        "v1.ckpt",
        "unet/diffusion_pytorch_model.bin",
        "safety_checker/model.safetensors",
        "vae/model.onnx",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not needed")
    return folder


def test_exactly_the_needed_files_are_fetched_and_stay_usable_without_the_hub(hub, repository, monkeypatch):
    from huggingface_hub import constants

    hub.repositories["org/model"] = repository
    source = fetch_model("org/model", "cpu")
    fetched = set(hub.fetched["org/model"])
    present = {str(path.relative_to(source.path)) for path in source.path.rglob("*") if path.is_file()}
    assert present == fetched
    assert not {name for name in fetched if name.endswith((".md", ".ckpt", ".bin", ".onnx", ".fp16.safetensors"))}
    assert not {name for name in fetched if name.startswith("safety_checker")}
    assert preflight(source, LAYOUTS).layout.family == "stable_diffusion"
    hub.fetched.clear()
    fetch_model("org/model", "cpu")
    assert hub.fetched == {}
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert fetch_model("org/model", "cpu").path == find_model("org/model").path == source.path


def test_half_precision_prefers_the_fp16_variant_and_a_pull_request_has_its_own_snapshot(hub, repository):
    hub.repositories["org/model"] = repository
    source = fetch_model("org/model@refs/pr/1", "cpu", "float16")
    unet = sorted(path.name for path in (source.path / "unet").iterdir())
    assert unet == ["config.json", "diffusion_pytorch_model.fp16.safetensors"]
    assert find_model("org/model@refs/pr/1").path == source.path
    with pytest.raises(ModelNotFound, match="is not on this machine"):
        find_model("org/model")


def test_an_unsupported_repository_is_refused_before_its_weights(hub, repository):
    index = json.loads((repository / "model_index.json").read_text())
    (repository / "model_index.json").write_text(json.dumps({**index, "_class_name": "KolorsPipeline"}))
    hub.repositories["org/model"] = repository
    with pytest.raises(ModelError, match="'KolorsPipeline' is not supported"):
        fetch_model("org/model", "cpu")
    assert hub.fetched["org/model"] == ["model_index.json"]
    (repository / "model_index.json").unlink()
    with pytest.raises(
        ModelError, match=r"no model_index.json\. Download 'safety_checker/model.safetensors' and use it"
    ):
        fetch_model("org/model", "cpu")


def test_a_clip_and_a_vae_are_fetched_by_their_kind(hub, tiny_v, tiny_epsilon, tmp_path):
    clip = tmp_path / "clip"
    shutil.copytree(tiny_v / "clip", clip)
    shutil.copytree(tiny_v / "tokenizer", clip, dirs_exist_ok=True)
    (clip / "pytorch_model.bin").write_bytes(b"not needed")
    hub.repositories |= {"org/clip": clip, "org/vae": tiny_epsilon / "vae", "org/model": tiny_epsilon}
    assert fetch_any("org/clip") == find_clip("org/clip").path
    assert "pytorch_model.bin" not in hub.fetched["org/clip"]
    assert fetch_any("org/vae") == find_vae("org/vae").path
    assert find_vae("org/model").path.name == "vae"
    assert sorted(hub.fetched["org/model"]) == ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"]


def test_a_single_file_fetches_the_tokenizer_that_it_lacks(hub, tiny_epsilon, tmp_path):
    file = save_single_file(tiny_epsilon, tmp_path / "x.safetensors", "sd1")
    clip = tmp_path / "clip"
    shutil.move(file.with_suffix("") / "tokenizer", clip)
    (clip / "model.safetensors").write_bytes(b"not needed")
    hub.repositories["openai/clip-vit-large-patch14"] = clip
    source = fetch_model(str(file), "cpu")
    assert sorted(hub.fetched["openai/clip-vit-large-patch14"]) == ["tokenizer.json", "tokenizer_config.json"]
    assert preflight(source, LAYOUTS).tokenizers["tokenizer"].options["pad_token"] == "<|endoftext|>"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "gated/x",
            "could not be downloaded: it is gated. Accept its terms on https://huggingface.co/gated/x",
        ),
        ("missing/x", "There is no model 'missing/x' on the hub, or it is private"),
        ("branch/x@no", "Model 'branch/x' has no revision 'no'"),
        ("slow/x", "could not be downloaded: the hub cannot be reached"),
    ],
)
def test_errors_of_the_hub_are_one_line_with_the_cure(hub, monkeypatch, name, message):
    monkeypatch.setattr(hub_module, "TIMEOUT", 0.2)
    with pytest.raises(ModelNotFound, match=message) as error:
        fetch_model(name, "cpu")
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 3


def test_a_full_disk_is_noticed_before_the_download(hub, repository, monkeypatch):
    hub.repositories["org/model"] = repository
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(ModelNotFound, match=r"needs 0.0 GB on the disk of the hub cache .* set HF_HOME to a folder"):
        fetch_model("org/model", "cpu")
    assert hub.fetched["org/model"] == ["model_index.json"]
    error = hub_module._explain(ModelId("hub", "org/x"), OSError(errno.ENOSPC, "No space left on device"))
    assert "the disk of the hub cache is full. Free some space" in str(error)


def test_an_unreachable_hub_is_one_line(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelNotFound, match="the hub cannot be reached"):
        fetch_model("org/x", "cpu")


# The names of files in published repositories.
SDXL = """model_index.json scheduler/scheduler_config.json text_encoder/config.json text_encoder/model.fp16.safetensors
text_encoder/model.safetensors text_encoder/model.onnx text_encoder_2/config.json text_encoder_2/model.safetensors
text_encoder_2/model.fp16.safetensors tokenizer/merges.txt tokenizer/special_tokens_map.json tokenizer/vocab.json
tokenizer/tokenizer_config.json tokenizer_2/merges.txt tokenizer_2/vocab.json tokenizer_2/tokenizer_config.json
unet/config.json unet/diffusion_pytorch_model.fp16.safetensors unet/diffusion_pytorch_model.safetensors
unet/model.onnx vae/config.json vae/diffusion_pytorch_model.safetensors vae/diffusion_pytorch_model.fp16.safetensors
vae_1_0/config.json vae_1_0/diffusion_pytorch_model.safetensors sd_xl_base_1.0.safetensors 01.png"""
FLUX = """model_index.json scheduler/scheduler_config.json text_encoder/config.json text_encoder/model.safetensors
text_encoder_2/config.json text_encoder_2/model.safetensors.index.json tokenizer/merges.txt tokenizer/vocab.json
text_encoder_2/model-00001-of-00002.safetensors text_encoder_2/model-00002-of-00002.safetensors
tokenizer/tokenizer_config.json tokenizer_2/spiece.model tokenizer_2/tokenizer.json tokenizer_2/tokenizer_config.json
transformer/config.json transformer/diffusion_pytorch_model.safetensors.index.json vae/config.json
transformer/diffusion_pytorch_model-00001-of-00002.safetensors vae/diffusion_pytorch_model.safetensors
transformer/diffusion_pytorch_model-00002-of-00002.safetensors flux1-schnell.safetensors ae.safetensors"""


def pipeline_index(kind: str) -> dict[str, Any]:
    from importlib.resources import files

    index: dict[str, Any] = json.loads((files("clipgen.models") / "configs" / f"{kind}.json").read_text())[
        "model_index"
    ]
    return index


def chosen(names: str, kind: str, *, half: bool) -> set[str]:
    index = pipeline_index(kind)
    layout, class_refs = check_index(index, LAYOUTS, lambda name: False)
    return set(model_files(names.split(), index, layout, class_refs, half))


def test_files_of_sdxl_and_flux():
    full, half = (chosen(SDXL, "sdxl", half=half) for half in (False, True))
    assert {name for name in full ^ half if "fp16" in name} == {name for name in SDXL.split() if "fp16" in name}
    assert len(full) == len(half) == 17
    assert not {name for name in full if name.startswith("vae_1_0") or name.endswith((".onnx", ".png"))}
    assert chosen(FLUX, "flux_schnell", half=True) == set(FLUX.split()) - {
        "flux1-schnell.safetensors",
        "ae.safetensors",
    }


def test_missing_weights_and_vocabularies_are_refused():
    with pytest.raises(ModelError, match=r"unet has only pickles \(unet/x.bin\), which can run code"):
        network_files(["unet/config.json", "unet/x.bin"], "unet", False)
    with pytest.raises(ModelError, match=r"vae has no \.safetensors file"):
        network_files(["vae/config.json"], "vae", False)
    with pytest.raises(ModelError, match="tokenizer has no vocabulary"):
        tokenizer_files(["tokenizer/tokenizer_config.json", "tokenizer/vocab.json"], "tokenizer")
    assert parse_id("org/name@refs/pr/12") == ModelId("hub", "org/name", "refs/pr/12")
