"""Reads ComfyUI: the node graph in `prompt`, followed backwards from the sampler of the saved image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from clipgen.errors import ImageFileError
from clipgen.image_file.restored import ParsedMetadata

MAX_NODES = 2_000
MAX_HOPS = 64
Graph = dict[str, dict[str, Any]]  # node id -> class_type, inputs

_SAMPLERS = ("KSampler", "SamplerCustom")
_OUTPUTS = ("Save", "Preview")
_OTHER_INPUTS = {"model", "clip", "vae", "image", "images", "pixels", "latent_image", "samples", "control_net", "mask"}
_TEXTS = ("text", "text_g", "t5xxl", "prompt", "string", "value")
# name -> (input names that hold the value, input names of the links to follow from the sampler)
_VALUES = {
    "seed": (("seed", "noise_seed", "value"), ("noise", "seed", "noise_seed")),
    "steps": (("steps", "value"), ("sigmas", "steps")),
    "guidance_scale": (("cfg", "value"), ("guider", "cfg")),
    "width": (("width", "value"), ("latent_image", "samples", "latent", "width")),
    "height": (("height", "value"), ("latent_image", "samples", "latent", "height")),
    "sampler": (("sampler_name", "value"), ("sampler", "sampler_name")),
    "schedule": (("scheduler", "value"), ("sigmas", "scheduler")),
    "model": (("ckpt_name", "unet_name", "model_name"), ("model", "guider", "base_model")),
    "denoise": (("denoise",), ("sigmas",)),
}
_TEXT_VALUES = {"sampler", "schedule", "model"}


def read(document: dict[str, Any]) -> ParsedMetadata | None:
    """Returns the settings in a graph; None for other JSON and for graphs without a sampler. Raises ImageFileError."""
    graph = _graph(document)
    sampler = _sampler(graph)
    if sampler is None:
        return None
    values = {name: _find_value(graph, sampler, name) for name in _VALUES}
    fields = {name: values[name] for name in ("seed", "steps", "guidance_scale", "width", "height")}
    fields["prompt"] = _prompt(graph, sampler, "positive") or _prompt(graph, sampler, "conditioning")
    fields["negative_prompt"] = _prompt(graph, sampler, "negative")
    unknown = {name: values[name] for name in ("model", "denoise") if values[name] is not None}
    return ParsedMetadata("ComfyUI", fields, sampler=values["sampler"], schedule=values["schedule"], unknown=unknown)


def _graph(document: dict[str, Any]) -> Graph:
    if len(document) > MAX_NODES:
        raise ImageFileError(f"a ComfyUI graph of {len(document):,} nodes; at most {MAX_NODES:,} are read")
    nodes = {id: node for id, node in document.items() if isinstance(node, dict)}
    return {id: node for id, node in nodes.items() if _kind(node) and isinstance(node.get("inputs"), dict)}


def _kind(node: dict[str, Any]) -> str:
    kind = node.get("class_type")
    return kind if isinstance(kind, str) else ""


def _sampler(graph: Graph) -> str | None:
    """Returns the sampler that a save node depends on, else any; of several the one with the lowest id."""
    samplers = {id for id, node in graph.items() if _is_sampler(node)}
    outputs = [id for id, node in graph.items() if any(mark in _kind(node) for mark in _OUTPUTS)]
    reached = samplers & set(_upstream(graph, outputs))
    return min(reached or samplers, key=_order, default=None)


def _is_sampler(node: dict[str, Any]) -> bool:
    """Tells whether a node samples: it has steps or sigmas. KSamplerSelect only names a sampler."""
    return _kind(node).startswith(_SAMPLERS) and bool({"steps", "sigmas"} & node["inputs"].keys())


def _order(id: str) -> tuple[int, int, str]:
    return (0, int(id), id) if id.isdecimal() and len(id) < 10 else (1, 0, id)


def _upstream(graph: Graph, start: list[str]) -> Iterator[str]:
    """Yields every node that the given ones depend on, each once."""
    queue, visited = list(start), set(start)
    for id in queue:
        yield id
        for link in _links(graph, id, graph[id]["inputs"]):
            if link not in visited:
                visited.add(link)
                queue.append(link)


def _links(graph: Graph, id: str, names: Iterable[str]) -> list[str]:
    """Returns the nodes that the named inputs link to; a link is a pair of node id and output number."""
    values = [graph[id]["inputs"].get(name) for name in names]
    links = [str(value[0]) for value in values if isinstance(value, list) and len(value) == 2]
    return [link for link in links if link in graph]


def _find_value(graph: Graph, sampler: str, what: str) -> Any:
    """Searches a value at the sampler and then along its links, breadth first, in at most MAX_HOPS nodes."""
    names, link_names = _VALUES[what]
    value_type = str if what in _TEXT_VALUES else (int, float)
    queue = [sampler]
    for id in queue:
        for value in map(graph[id]["inputs"].get, names):
            if isinstance(value, value_type) and not isinstance(value, bool):
                return value
        queue += [link for link in _links(graph, id, link_names) if link not in queue][: MAX_HOPS - len(queue)]
    return None


def _prompt(graph: Graph, sampler: str, side: str) -> str:
    """Returns the text that the positive or negative input of the sampler or its guider leads to."""
    visited: set[str] = set()
    for id in [sampler, *_links(graph, sampler, ["guider"])]:
        for link in _links(graph, id, [side]):
            return _text(graph, link, side, visited)
    return ""


def _text(graph: Graph, id: str, side: str, visited: set[str]) -> str:
    """Returns the first text at a node or the nodes it depends on; ConditioningZeroOut has none."""
    if id in visited or len(visited) >= MAX_HOPS or _kind(graph[id]) == "ConditioningZeroOut":
        return ""
    visited.add(id)
    inputs = graph[id]["inputs"]
    for name in _TEXTS:
        if isinstance(inputs.get(name), str) and inputs[name].strip():
            return str(inputs[name])
    other = "positive" if side == "negative" else "negative"
    rest = [name for name in inputs if name not in {*_OTHER_INPUTS, *_TEXTS, side, other}]
    texts = (_text(graph, link, side, visited) for link in _links(graph, id, [*_TEXTS, side, *rest]))
    return next(filter(None, texts), "")
