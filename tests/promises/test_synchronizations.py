"""Hardly any method waits for the device before its answer: one read at the end tells of all that was checked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from nets import small_classifier
from quick import OF_ANY_NETWORK, quick
from synchronizations import Synchronizations
from torch import Tensor, nn

from cnnviz import explain
from cnnviz.engine import device_policy
from cnnviz.engine.device_policy import CUDA
from cnnviz.formulas import MapWarning

GPU = replace(CUDA, budget=48 * 2**30)
AT_THE_END = 1
ON_THE_HOST = ("feature_ablation", "kernel_shap", "lime", "shapley_sampling")
WAITING = {"projections": 1} | dict.fromkeys(ON_THE_HOST, 2)
"""How often methods read more: the numbers of the strongest channels, and pictures that are cut into superpixels."""


def asked(method: str, model: nn.Module, inputs: Tensor, **more: Any) -> int:
    with Synchronizations([inputs, *model.parameters(), *model.buffers()]) as waits:
        explain(model, inputs, method, **quick(method), **more)
    assert waits.count >= AT_THE_END, "the answer is checked"
    return waits.count


@pytest.mark.parametrize("method", OF_ANY_NETWORK)
def test_a_question_is_read_once(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_policy, "CPU", GPU)
    model, inputs = small_classifier(), torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    explain(model, inputs, method, **quick(method))  # facts of the model are found once
    assert asked(method, model, inputs) == AT_THE_END + WAITING.get(method, 0)


@pytest.mark.parametrize("method", ON_THE_HOST)
def test_pieces_that_do_not_depend_on_the_picture_are_not_waited_for(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_policy, "CPU", GPU)
    model, inputs = small_classifier(), torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    explain(model, inputs, method, **quick(method))
    assert asked(method, model, inputs, segments="equal") == AT_THE_END


def test_what_would_wait_is_counted() -> None:
    given = torch.rand(3)
    with Synchronizations([given]) as waits:
        given.sum().item()
        bool((given > 2).any())
        float(given[0])
        given.tolist()
        (given * 2).cpu()
        given[given > 0.5]
        torch.equal(given, given)
        given.unique()
        torch.tensor([1.0], device=given.device)
        given.new_tensor([1.0])
        torch.ones(3, device="cpu").to(given)
    assert waits.count == 11
    with Synchronizations([given]) as waits:
        host = torch.ones(3, device="cpu")
        host.tolist(), bool(host.any()), host[host > 0], host.unique()
        given + 1, given.where(given > 0, 0)
        host.to(given.device, non_blocking=True)
    assert waits.count == 0


@pytest.mark.parametrize("method", ["integrated_gradients", "smoothgrad", "occlusion"])
def test_half_precision_is_answered_as_at_once(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = (
        small_classifier().bfloat16(),
        torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0)).bfloat16(),
    )
    expected = explain(model, inputs, method, target=1, **quick(method)).values
    monkeypatch.setattr(device_policy, "CPU", replace(device_policy.CPU, defers=True))
    assert torch.equal(explain(model, inputs, method, target=1, **quick(method)).values, expected)


def test_fullgrad_of_a_model_that_reads_values_is_answered_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reads(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = super().forward(x)
            return scores * 2 if float(x.detach().sum()) > 0 else scores

    model, inputs = (
        Reads(*small_classifier()).eval(),
        torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0)),
    )
    expected = explain(model, inputs, "fullgrad", target=1).values
    monkeypatch.setattr(device_policy, "CPU", replace(device_policy.CPU, defers=True))
    torch.testing.assert_close(explain(model, inputs, "fullgrad", target=1).values, expected)


def test_a_warning_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_policy, "CPU", GPU)
    model = small_classifier()
    with torch.no_grad():
        model[8].weight.zero_()
    with pytest.warns(MapWarning) as told:
        explain(model, torch.rand(2, 3, 12, 12), "saliency_confusion", target=1)
    assert len({str(each.message) for each in told}) == len(told)
