from __future__ import annotations

import gc
import os

import pytest
import torch

from clipgen.device import (
    MemoryFallback,
    check_compiles,
    check_memory,
    collection_off,
    cpu_computes_in_bfloat16,
    devices,
    free_memory,
    images_at_once,
    is_out_of_memory,
    pick_device,
    pick_dtype,
    set_library_switches,
    wider_dtype,
)
from clipgen.errors import OutOfMemory, SettingsError

CPU = torch.device("cpu")
SIZE = (512, 512)


def test_auto_is_the_fastest_available_device():
    assert devices()[-1] == "cpu"
    assert str(pick_device("auto")) == devices()[0]
    assert pick_device("cpu") == CPU


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", ""])
def test_an_unavailable_device_is_an_error(name):
    with pytest.raises(SettingsError, match=f"Device '{name}' is not available. Devices: auto, .*cpu") as error:
        pick_device(name)
    assert error.value.field == "device"


def test_dtypes_have_short_and_long_names():
    assert pick_dtype("auto", CPU) == torch.float32
    assert pick_dtype("auto", torch.device("cuda")) == torch.float16
    assert pick_dtype("bf16", CPU) == pick_dtype("bfloat16", CPU) == torch.bfloat16
    with pytest.raises(SettingsError, match="Unknown dtype 'int8'") as error:
        pick_dtype("int8", CPU)
    assert error.value.field == "dtype"


def test_auto_fast_is_bfloat16_on_a_cpu_that_computes_in_it():
    expected = torch.bfloat16 if cpu_computes_in_bfloat16() else torch.float32
    assert pick_dtype("auto-fast", CPU) == expected
    assert pick_dtype("auto", CPU, prefers_bfloat16=True) == torch.float32
    assert pick_dtype("auto-fast", torch.device("mps")) == torch.float32
    assert pick_dtype("auto-fast", torch.device("cuda")) == pick_dtype("auto", torch.device("cuda"))


def test_compiling_is_refused_on_a_cpu():
    with pytest.raises(SettingsError, match="compile works on CUDA cards, got device 'cpu'") as error:
        check_compiles(CPU)
    assert error.value.field == "compile"


def test_float16_is_followed_by_bfloat16_and_float32():
    assert wider_dtype(torch.float16, CPU) == torch.bfloat16
    assert wider_dtype(torch.bfloat16, CPU) == torch.float32
    assert wider_dtype(torch.float32, CPU) is None


@pytest.mark.parametrize(
    ("side", "device", "count"),
    [(128, "cpu", 8), (256, "cpu", 2), (512, "cpu", 1), (512, "cuda", 16), (64, "cuda", 64)],
)
def test_small_images_are_batched(side, device, count):
    assert images_at_once(side, side, torch.device(device)) == count


def test_check_memory_compares_with_free_memory():
    assert free_memory(CPU) is None or free_memory(CPU) > 2**20
    check_memory(1, CPU, "storybook")
    with pytest.raises(OutOfMemory, match=r"Model 'giant' needs 1048576.0 GiB of memory, .* GiB are free on cpu"):
        check_memory(2**50, CPU, "giant")


def test_out_of_memory_errors_are_recognised():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("MPS backend out of memory"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_an_allocation_error_of_torch_is_out_of_memory():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**62, dtype=torch.uint8)
    assert is_out_of_memory(error.value)


class LimitedMemory:
    """A function that raises OutOfMemoryError for more than `rows` samples, and records batch sizes."""

    def __init__(self, rows, refusals=10**9, message="Tried to allocate 8.00 GiB"):
        self.rows, self.refusals, self.message = rows, refusals, message
        self.batch_sizes = []

    def __call__(self, x, y):
        self.batch_sizes.append(len(x))
        if len(x) > self.rows and self.refusals > 0:
            self.refusals -= 1
            raise torch.OutOfMemoryError(self.message)
        return x + y


def run(fallback, memory, rows=8):
    x = torch.arange(rows * 2.0).view(rows, 2)
    assert torch.equal(fallback.run("denoising", SIZE, memory, x, -x), torch.zeros(rows, 2))
    return memory.batch_sizes


def test_a_batch_that_fits_is_not_split():
    fallback = MemoryFallback(CPU)
    assert run(fallback, LimitedMemory(8)) == [8]
    assert fallback.measures(SIZE) == []


def test_the_first_retry_has_the_same_batch_size():
    fallback = MemoryFallback(CPU)
    assert run(fallback, LimitedMemory(0, refusals=1)) == [8, 8]
    assert fallback.measures(SIZE) == []


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 7])
def test_the_batch_size_is_halved_until_it_fits_and_stored(rows):
    fallback = MemoryFallback(CPU)
    batch_sizes = run(fallback, LimitedMemory(rows))
    assert batch_sizes[:3] == [8, 8, 4]
    batch_size = batch_sizes[-1]
    assert batch_size <= rows < 2 * batch_size or batch_size == 4
    assert run(fallback, LimitedMemory(rows)) == [batch_size] * (8 // batch_size)
    assert fallback.measures(SIZE) == [f"denoising ran {batch_size} at a time to fit into memory"]
    assert fallback.measures((64, 64)) == []


def test_an_odd_batch_loses_no_sample():
    assert run(MemoryFallback(CPU), LimitedMemory(2), rows=7)[-1] == 1


def test_out_of_memory_for_one_sample_suggests_a_smaller_size():
    with pytest.raises(
        OutOfMemory, match=r"denoising of 512 x 512 does not fit .*8.0 GiB requested, .* Try \d+ x \d+\."
    ) as error:
        run(MemoryFallback(CPU), LimitedMemory(0))
    assert error.value.field == "width"
    assert error.value.exit_code == 4


def test_a_last_resort_is_tried_once_before_out_of_memory():
    memory, fallback, resorts = LimitedMemory(0), MemoryFallback(CPU), ["in tiles"]

    def last_resort():
        memory.rows = 8
        return resorts.pop() if resorts else None

    x = torch.zeros(2, 2)
    fallback.run("decoding", SIZE, memory, x, x, last_resort=last_resort)
    assert memory.batch_sizes == [2, 2, 1, 1, 1]
    assert "decoding ran in tiles to fit into memory" in fallback.measures(SIZE)
    with pytest.raises(OutOfMemory):
        fallback.run("decoding", SIZE, LimitedMemory(0), x, x, last_resort=last_resort)


def test_other_errors_are_raised():
    def fail(x):
        raise RuntimeError("mat1 and mat2")

    with pytest.raises(RuntimeError, match="mat1"):
        MemoryFallback(CPU).run("denoising", SIZE, fail, torch.zeros(2))


def test_garbage_collection_is_paused_and_resumed():
    with collection_off():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    with collection_off():
        pass
    assert not gc.isenabled()
    gc.enable()


def test_library_switches_disable_remote_code_and_telemetry(monkeypatch):
    monkeypatch.setenv("DIFFUSERS_DISABLE_REMOTE_CODE", "0")
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    set_library_switches()
    assert os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] == "1"
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"
