"""Functions and objectives that know an input's place in the batch, in every attribution and several metrics.

The right values are those of the inputs one by one.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import randomized, tiny_inputs
from quick import OF_ANY_NETWORK, quick
from torch import Tensor, nn

from cnnviz import attributions, evaluate, explain
from cnnviz.objectives import feature_distance
from cnnviz.targets import similar

ITEMS, CLASSES = 5, torch.tensor([2, 0, 1, 2, 1])
METHODS = sorted(set(OF_ANY_NETWORK) - {"saliency_confusion", "cam", "projections", "rise", "d_rise"})


def asked(net: nn.Module, inputs: Tensor, method: str, target: Any, **how: Any) -> Tensor:
    settings = quick(method)
    settings |= {"segments": "equal"} if "pieces" in settings else {}
    settings |= {"layer": "0"} if "layer" in attributions[method].settings else {}
    return explain(net, inputs, method, target=target, **settings, **how).values


def dense() -> nn.Module:
    return randomized(nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)))


def embedding() -> nn.Module:
    """The features are no channels of layer "0", whose map would explain each by itself."""
    convolutions = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1)
    return randomized(nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten()))


def each(net: nn.Module, inputs: Tensor, method: str, targets: list[Any]) -> Tensor:
    pairs = zip(inputs.split(1), targets, strict=True)
    return torch.cat([asked(net, one, method, target) for one, target in pairs])


@pytest.mark.parametrize("memory", [None, 20_000])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", ["function", "list", "places"])
def test_each_input_of_a_dense_network_has_a_class_of_its_own(method: str, way: str, memory: int | None) -> None:
    """Also where the batch is passed in parts, for which the memory is too small."""
    net, inputs = dense(), tiny_inputs(items=ITEMS)
    targets: Any = {
        "function": lambda out: out[torch.arange(len(out)), CLASSES[torch.arange(len(out)) % ITEMS]].mean((1, 2)),
        "list": [lambda out, c=c: out[:, c].mean((1, 2)) for c in CLASSES.tolist()],
        "places": [(c, 2, 3) for c in CLASSES.tolist()],
    }[way]
    alone: list[Any] = [lambda out, c=c: out[:, c].mean((1, 2)) for c in CLASSES.tolist()]
    alone = [lambda out, c=c: out[:, c, 2, 3] for c in CLASSES.tolist()] if way == "places" else alone
    found = asked(net, inputs, method, targets, memory=memory)
    torch.testing.assert_close(found, each(net, inputs, method, alone), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", ["function", "similar"])
def test_each_input_has_a_reference_of_its_own(method: str, way: str) -> None:
    net, inputs = embedding(), tiny_inputs(items=ITEMS)
    references = torch.randn(ITEMS, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    target = similar(references) if way == "similar" else lambda out: torch.cosine_similarity(out, references)
    alone = [lambda out, r=r: torch.cosine_similarity(out, r[None]) for r in references]
    torch.testing.assert_close(
        asked(net, inputs, method, target), each(net, inputs, method, alone), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("metric", ["deletion", "insertion", "road", "infidelity"])
def test_metrics_ask_each_input_for_its_own_class(metric: str) -> None:
    net, inputs = dense(), tiny_inputs(items=ITEMS)
    target = lambda out: out[torch.arange(ITEMS), CLASSES].mean((1, 2))  # noqa: E731
    explanation = explain(net, inputs, "gradient", target=target)
    found = evaluate(explanation, metric, model=net, target=target)
    for item, cls in enumerate(CLASSES.tolist()):
        own = lambda out, c=cls: out[:, c].mean((1, 2))  # noqa: E731
        one = explain(net, inputs[item : item + 1], "gradient", target=own)
        torch.testing.assert_close(found[item : item + 1], evaluate(one, metric, model=net, target=own))


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_features_of_each_input_are_read_whatever_was_asked_before(method: str, before: bool) -> None:
    net, inputs = embedding(), tiny_inputs(items=ITEMS)
    with torch.no_grad():
        features = net[1](net[0](tiny_inputs(items=ITEMS, seed=8)))  # type: ignore[index]
    passes: list[int] = []
    net.register_forward_hook(lambda module, args, output: passes.append(len(args[0])))
    if before:
        asked(net, inputs, method, 0)
    found = asked(net, inputs, method, feature_distance("1", features))
    passes.clear()
    again = asked(net, inputs, method, 0)
    after = list(passes)
    passes.clear()
    fresh = embedding()
    fresh.register_forward_hook(lambda module, args, output: passes.append(len(args[0])))
    torch.testing.assert_close(again, asked(fresh, inputs, method, 0))
    assert sum(after) <= sum(passes), "an objective leaves nothing behind that costs passes"
    alone = [feature_distance("1", features[item : item + 1]) for item in range(ITEMS)]
    torch.testing.assert_close(found, each(net, inputs, method, alone), rtol=1e-6, atol=1e-9)
