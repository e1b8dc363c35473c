"""A network without hooks shares the weights of the original and leaves it alone."""

from __future__ import annotations

import accelerate
import torch
from torch import nn

from clipgen.models.without_hooks import is_wrapped, without_hooks


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()


def test_weights_are_shared_and_hooks_are_not() -> None:
    original, inputs = network(), torch.randn(3, 4)
    original[0].register_forward_hook(lambda module, args, output: output * 0)
    original[2].forward = lambda x: x  # as hooks of offloading replace it
    expected = network()(inputs)
    clone = without_hooks(original)
    assert torch.equal(clone(inputs), expected)
    assert original(inputs).shape == (3, 4)
    assert [weight.data_ptr() for weight in clone.parameters()] == [
        weight.data_ptr() for weight in original.parameters()
    ]
    clone.double()
    assert all(weight.dtype == torch.float32 for weight in original.parameters())


def test_sequentially_offloaded_weights_are_found() -> None:
    original, inputs = network(), torch.randn(3, 4)
    expected = original(inputs)
    assert not is_wrapped(original)
    accelerate.cpu_offload(original, torch.device("cpu"))
    assert is_wrapped(original)
    assert all(weight.is_meta for weight in original.parameters())
    clone = without_hooks(original)
    assert not is_wrapped(clone)
    assert torch.equal(clone(inputs), expected)


def test_modules_that_occur_twice_stay_one_module() -> None:
    shared = nn.Linear(2, 2)
    clone = without_hooks(nn.ModuleList([shared, shared]))
    assert clone[0] is clone[1]


def test_parameters_of_quantisers_are_kept() -> None:
    class Packed(nn.Parameter):
        pass

    original = nn.Linear(2, 2)
    original.weight = Packed(torch.ones(2, 2))
    assert without_hooks(original).weight is original.weight
