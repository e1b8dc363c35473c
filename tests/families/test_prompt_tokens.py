"""Windows of a long prompt, clip skip and textual inversion give the images of diffusers."""

from __future__ import annotations

import pytest
import tiny
import torch
from parity import clipgen_images, clipgen_results, diffusers_images, max_difference
from safetensors.torch import save_file

from clipgen import ModelError, Pipeline, Settings, SettingsError


def test_windows_equal_prompt_embeds_in_diffusers(model):
    """The pooled embedding is that of the first window; the negative prompt gets an empty second window."""
    ours = clipgen_images(
        model.pipe, "a fox BREAK in snow", negative_prompt="rain", long_prompt="chunk", guidance_scale=5.0
    )
    theirs = model.theirs_of_embeds(["a fox", "in snow"], ["rain", ""])
    assert max_difference(ours, theirs) <= 1e-4
    cut = clipgen_images(model.pipe, "a fox in snow", negative_prompt="rain", guidance_scale=5.0)
    chunk = clipgen_images(model.pipe, "a fox in snow", negative_prompt="rain", guidance_scale=5.0, long_prompt="chunk")
    assert torch.equal(cut, chunk)
    assert max_difference(ours, cut) > 2 / 255


def test_images_of_one_batch_have_equally_many_windows(model):
    prompt = "{a fox|a fox BREAK in snow|a}"
    settings = Settings(prompt=prompt, long_prompt="chunk", seed=1, images=4, steps=2, width=64, height=64)
    results = model.pipe.run(settings)
    assert len({result.settings.prompt for result in results}) > 1
    assert all(
        "BREAK" not in result.metadata["settings"]["prompt"] or result.pixels.isfinite().all() for result in results
    )


def test_clip_skip_equals_that_of_diffusers(model, monkeypatch):
    text_encoder = model.reference.text_encoder
    if not hasattr(model.reference, "text_encoder_2"):  # diffusers 0.42 looks for a submodule of old transformers
        monkeypatch.setitem(vars(text_encoder), "text_model", text_encoder)
    options = {"negative_prompt": "rain", "clip_skip": 1, "guidance_scale": 5.0}
    ours = clipgen_images(model.pipe, **options)
    assert max_difference(ours, diffusers_images(model.reference, **options)) <= 1e-4
    assert max_difference(ours, model.plain) > 2 / 255
    with pytest.raises(SettingsError, match="clip_skip must be at most 1 for model"):
        model.pipe.run(Settings(prompt="a fox", clip_skip=2, width=64, height=64))
    with pytest.raises(SettingsError, match="clip_skip must be at most 1 for model"):
        Pipeline.from_pretrained(str(model.folder), settings=[Settings(prompt="a fox", clip_skip=2)])


def vectors(count, seed, width=32):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_textual_inversion_equals_that_of_diffusers(models, private_home, tmp_path):
    model, folder = models["sd"], private_home / "embeddings"
    folder.mkdir()
    one, two = vectors(2, 0), vectors(1, 1)
    save_file({"emb_params": one}, folder / "bad-art.safetensors")  # A1111
    save_file({"<owl>": two[0]}, tmp_path / "owl.safetensors")  # diffusers
    prompt, negative = "an <owl> in snow", "(Bad-Art:1.0), rain"
    [ours, *_] = results = clipgen_results(
        model.pipe, prompt, negative_prompt=negative, embedding=[str(tmp_path / "owl.safetensors")], guidance_scale=5.0
    )
    record = ours.metadata
    assert record["settings"]["embedding"] == ["./owl.safetensors"]
    assert set(record["inputs"]) == {"embedding:owl.safetensors", "embedding:bad-art.safetensors"}
    reference = type(model.reference).from_pretrained(model.folder, dtype=torch.float32, local_files_only=True)
    reference.load_textual_inversion({"<owl>": two[0]})
    reference.load_textual_inversion({"emb_params": one}, token="bad-art")
    theirs = diffusers_images(reference, prompt, negative_prompt="bad-art, rain", guidance_scale=5.0)
    assert max_difference(torch.stack([each.pixels for each in results]), theirs) <= 1e-4


def test_textual_inversion_of_sdxl_has_vectors_for_both_text_encoders(models, private_home):
    model, folder = models["xl"], private_home / "embeddings"
    folder.mkdir()
    tensors = {"clip_l": vectors(2, 0), "clip_g": vectors(2, 1)}
    save_file(tensors, folder / "style.safetensors")
    ours = clipgen_images(model.pipe, "a fox, style", guidance_scale=5.0)
    reference = type(model.reference).from_pretrained(model.folder, dtype=torch.float32, local_files_only=True)
    for suffix, key in (("", "clip_l"), ("_2", "clip_g")):
        parts = reference.components[f"text_encoder{suffix}"], reference.components[f"tokenizer{suffix}"]
        reference.load_textual_inversion({"style": tensors[key]}, "style", text_encoder=parts[0], tokenizer=parts[1])
    theirs = diffusers_images(reference, "a fox, style", guidance_scale=5.0)
    assert max_difference(ours, theirs) <= 1e-4
    assert max_difference(ours, clipgen_images(model.pipe, "a fox, styles", guidance_scale=5.0)) > 2 / 255


@pytest.mark.parametrize(
    "tensors, message",
    [
        ({"clip_l": vectors(2, 0), "clip_g": vectors(2, 1)}, "vectors of width 32 and 32; the text encoders of .* 32"),
        ({"emb_params": vectors(2, 0, 768)}, "is made for Stable Diffusion 1; the text encoders of model .* width 32"),
        ({"emb_params": vectors(76, 0)}, "must have 1 to 75 vectors"),
        ({"a": vectors(1, 0), "b": vectors(1, 0)}, "is no embedding: it holds a, b"),
        ({"emb_params": torch.full((1, 32), torch.inf)}, "holds numbers that are not finite"),
    ],
)
def test_other_embeddings_are_refused(models, tmp_path, tensors, message):
    save_file(tensors, tmp_path / "x.safetensors")
    settings = Settings(prompt="a fox", embedding=[str(tmp_path / "x.safetensors")], width=64, height=64)
    with pytest.raises(ModelError, match=message) as error:
        models["sd"].pipe.run(settings)
    assert error.value.field == "embedding"
    (tmp_path / "x.pt").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"'x\.pt' is a pickle"):
        models["sd"].pipe.run(settings.replace(embedding=[str(tmp_path / "x.pt")]))


def test_an_embedding_in_a_folder_that_does_not_fit_is_a_word(models, private_home):
    (private_home / "embeddings").mkdir()
    pipe, small = models["sd"].pipe, {"width": 64, "height": 64, "steps": 1, "seed": 1}
    (before,) = pipe.run(Settings(prompt="a fox", **small))
    save_file({"clip_l": vectors(1, 0), "clip_g": vectors(1, 1)}, private_home / "embeddings" / "fox.safetensors")
    (result,) = pipe.run(Settings(prompt="a fox", **small))
    assert torch.equal(result.pixels, before.pixels)
    assert "It is read as a word." in next(n.message for n in result.warnings if n.code == "embedding-not-used")
    assert result.metadata["inputs"] == {}


def test_families_with_other_text_encoders_say_what_they_do_not_take(tmp_path):
    pipe = Pipeline.from_pretrained(str(tiny.save_flux(tmp_path / "flux")))
    small = {"width": 64, "height": 64, "steps": 1}
    for field, value in (("clip_skip", 1), ("embedding", ["x"])):
        with pytest.raises(SettingsError, match="its family is flux") as error:
            pipe.run(Settings(prompt="a fox", **small, **{field: value}))
        assert error.value.field == field
    (result,) = pipe.run(Settings(prompt="a fox " * 30, long_prompt="chunk", **small))
    assert "prompt-cut" in {note.code for note in result.warnings}
