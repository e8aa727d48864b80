"""Prepared questions on a GPU: captured graphs answer as ``explain`` does, and nothing waits for the device."""

from __future__ import annotations

import warnings

import pytest
import torch
from nets import small_classifier
from quick import ATTENDING, quick
from torch import Tensor, nn

from cnnviz import attributions, explain, prepare
from cnnviz.testing import SmallNet

EAGER = {"projections", "feature_ablation", "kernel_shap", "lime", "shapley_sampling"}
"""Methods that read values on their way."""


def net() -> nn.Module:
    return small_classifier().cuda()


def pictures(seed: int, items: int = 2) -> Tensor:
    return torch.rand(items, 3, 12, 12, generator=torch.Generator().manual_seed(seed)).cuda()


@pytest.mark.parametrize("method", attributions)
def test_a_captured_question_answers_as_explain(method: str) -> None:
    model, settings = SmallNet(attention=True).cuda() if method in ATTENDING else net(), quick(method)
    expected = [explain(model, pictures(seed), method, precision="float32", **settings) for seed in (1, 2, 3)]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        asked = prepare(model, method, like=pictures(1), precision="float32", **settings)
        found = [asked(pictures(seed)) for seed in (1, 2, 3)]
    for each, wanted in zip(found, expected, strict=True):
        assert (each.values - wanted.values).abs().max() <= 1e-6 * wanted.values.abs().max()
    without = [str(each.message) for each in told if "without a graph" in str(each.message)]
    assert len(without) == (method in EAGER), without


def test_written_and_exchanged_weights_are_noticed() -> None:
    model = net()
    asked = prepare(model, ["grad_cam", "gradient"], like=pictures(1), target=1)
    asked(pictures(1))
    for change in (lambda: model[0].weight.data.mul_(2), lambda: setattr(model[8], "bias", None), lambda: model.half()):
        change()
        inputs = pictures(2).to(model[0].weight.dtype)
        if inputs.dtype == torch.float32:
            for name, wanted in explain(model, inputs, ["grad_cam", "gradient"], target=1).items():
                torch.testing.assert_close(asked(inputs)[name].values, wanted.values)
        else:
            with pytest.raises(ValueError, match="prepare another question"):
                asked(inputs)


def test_a_thousand_calls_take_no_memory() -> None:
    model, inputs = net(), pictures(1)
    asked = prepare(model, "grad_cam", like=inputs, target=1)
    asked(inputs)
    before = torch.cuda.memory_allocated()
    for _ in range(1000):
        asked(inputs)
    assert torch.cuda.memory_allocated() <= before


@pytest.mark.parametrize(
    "method", ["grad_cam", "gradient", "guided_backprop", "integrated_gradients", "smoothgrad", "rise"]
)
def test_a_question_waits_once(method: str) -> None:
    model, inputs = net(), pictures(1)
    for _ in range(2):
        explain(model, inputs, method, target=1, **quick(method))
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            explain(model, inputs, method, target=1, **quick(method))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([wait for wait in waits if "synchroniz" in str(wait.message)]) == 1
