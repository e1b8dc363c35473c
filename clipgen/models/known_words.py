"""The words that a model knows, for people who write prompts."""

from __future__ import annotations

from clipgen.models.find import find_model
from clipgen.models.hub import download
from clipgen.models.hub_files import ROOT_FILES
from clipgen.models.ids import parse_id
from clipgen.models.preflight import read_vocabulary


def known_words(model: str = "storybook", *, offline: bool = False) -> dict[str, dict[str, list[str]]]:
    """Returns the words of the captions that a model was trained on, by kind.

    Args:
        model: a bundled name, a hub id org/name, or a ./folder.
        offline: whether a hub id that is not on this machine is an error instead of a download.

    Returns:
        The kinds are things, places, times, colours, styles, counts, sizes and relations. Each maps a name to the
        other words for it: `known_words()["things"]["truck"]` holds "lorry". It is empty if the model declares no
        vocabulary in its clipgen.json.

    Raises:
        SettingsError, ModelNotFound, ModelError.
    """
    model_id = parse_id(model)
    if model_id.kind == "hub" and not offline:
        download(model_id, lambda names, read: [name for name in ROOT_FILES if name in names])
    vocabulary = read_vocabulary(find_model(model).path)
    return {} if vocabulary is None else vocabulary.to_dict()
