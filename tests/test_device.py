from __future__ import annotations

import gc
import os

import pytest
import torch

from clipgen.device import (
    MemoryFallback,
    check_memory,
    collection_off,
    devices,
    free_memory,
    images_at_once,
    is_out_of_memory,
    pick_device,
    pick_dtype,
    set_library_switches,
)
from clipgen.errors import OutOfMemory, SettingsError

CPU = torch.device("cpu")
SIZE = (512, 512)


def test_auto_is_the_fastest_device_there_is():
    assert devices()[-1] == "cpu"
    assert str(pick_device("auto")) == devices()[0]
    assert pick_device("cpu") == CPU


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", ""])
def test_a_device_that_is_not_here_is_named(name):
    with pytest.raises(SettingsError, match=f"Device '{name}' is not available. Devices: auto, .*cpu") as error:
        pick_device(name)
    assert error.value.field == "device"


def test_precisions_have_two_spellings():
    assert pick_dtype("auto", CPU) == torch.float32
    assert pick_dtype("auto", torch.device("cuda")) == torch.float16
    assert pick_dtype("bf16", CPU) == pick_dtype("bfloat16", CPU) == torch.bfloat16
    with pytest.raises(SettingsError, match="Unknown dtype 'int8'") as error:
        pick_dtype("int8", CPU)
    assert error.value.field == "dtype"


@pytest.mark.parametrize(
    ("side", "device", "count"),
    [(128, "cpu", 8), (256, "cpu", 2), (512, "cpu", 1), (512, "cuda", 16), (64, "cuda", 64)],
)
def test_small_pictures_are_batched(side, device, count):
    assert images_at_once(side, side, torch.device(device)) == count


def test_memory_is_known_here():
    assert free_memory(CPU) is None or free_memory(CPU) > 2**20
    check_memory(1, CPU, "storybook")
    with pytest.raises(OutOfMemory, match=r"Model 'giant' needs 1048576.0 GiB of memory, .* GiB are free on cpu"):
        check_memory(2**50, CPU, "giant")


def test_what_counts_as_out_of_memory():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("MPS backend out of memory"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_torchs_own_refusal_counts():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**62, dtype=torch.uint8)
    assert is_out_of_memory(error.value)


class Memory:
    """A device that holds so many rows, for so many calls; it remembers what it was asked."""

    def __init__(self, rows, refusals=10**9, message="Tried to allocate 8.00 GiB"):
        self.rows, self.refusals, self.message = rows, refusals, message
        self.asked = []

    def __call__(self, x, y):
        self.asked.append(len(x))
        if len(x) > self.rows and self.refusals > 0:
            self.refusals -= 1
            raise torch.OutOfMemoryError(self.message)
        return x + y


def run(ladder, memory, rows=8):
    x = torch.arange(rows * 2.0).view(rows, 2)
    assert torch.equal(ladder.run("denoising", SIZE, memory, x, -x), torch.zeros(rows, 2))
    return memory.asked


def test_what_fits_runs_whole():
    ladder = MemoryFallback(CPU)
    assert run(ladder, Memory(8)) == [8]
    assert ladder.measures(SIZE) == []


def test_the_first_rung_is_the_same_again():
    ladder = MemoryFallback(CPU)
    assert run(ladder, Memory(0, refusals=1)) == [8, 8]
    assert ladder.measures(SIZE) == []


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7])
def test_pieces_shrink_until_they_fit_and_that_is_remembered(rows):
    ladder = MemoryFallback(CPU)
    asked = run(ladder, Memory(rows))
    assert asked[:3] == [8, 8, 4]
    fitted = asked[-1]
    assert fitted <= rows < 2 * fitted or fitted == 4
    assert run(ladder, Memory(rows)) == [fitted] * (8 // fitted)
    assert ladder.measures(SIZE) == [f"denoising ran {fitted} at a time to fit into memory"]
    assert ladder.measures((64, 64)) == []


def test_odd_batches_lose_no_row():
    assert run(MemoryFallback(CPU), Memory(2), rows=7)[-1] == 1


def test_the_end_of_the_ladder_names_a_size():
    with pytest.raises(
        OutOfMemory, match=r"denoising of 512 x 512 does not fit .*8.0 GiB requested, .* Try \d+ x \d+\."
    ) as error:
        run(MemoryFallback(CPU), Memory(0))
    assert error.value.field == "width"
    assert error.value.exit_code == 4


def test_other_errors_pass():
    def fail(x):
        raise RuntimeError("mat1 and mat2")

    with pytest.raises(RuntimeError, match="mat1"):
        MemoryFallback(CPU).run("denoising", SIZE, fail, torch.zeros(2))


def test_collection_is_paused_and_resumed():
    with collection_off():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    with collection_off():
        pass
    assert not gc.isenabled()
    gc.enable()


def test_the_libraries_run_no_code_and_phone_nobody(monkeypatch):
    monkeypatch.setenv("DIFFUSERS_DISABLE_REMOTE_CODE", "0")
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    set_library_switches()
    assert os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] == "1"
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"
