"""A method with its settings prints as its call, and what users hand over becomes methods with their settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from cnnviz import metric, renderer
from cnnviz.registry.configured import ConfiguredMethod, code, name_of
from cnnviz.registry.registry import Registry
from cnnviz.registry.resolve import resolve


def test_a_method_with_its_settings_is_its_callable_and_prints_as_its_call() -> None:
    method = ConfiguredMethod("power", lambda base: base**3, (("exponent", 3), ("of", "x")))
    assert method(2) == 8
    assert repr(method) == "power(exponent=3, of='x')"
    assert repr(method.at_layer("conv")) == "power(layer='conv', exponent=3, of='x')"
    named = ConfiguredMethod("power", method.function, (("exponent", 3), ("layer", "norm")))
    assert named.at_layer("conv") is named
    unnamed = ConfiguredMethod("power", method.function, (("exponent", 3), ("layer", None)))
    assert unnamed.at_layer("conv").settings == (("layer", "conv"), ("exponent", 3))


def test_values_of_settings_are_written_as_code() -> None:
    assert [code(value) for value in ("a", 0.5, torch.zeros(2, 3), nn.ReLU())] == [
        "'a'",
        "0.5",
        "tensor(2, 3)",
        "<ReLU>",
    ]
    assert code(nn.ReLU(), lambda module: type(module).__name__.lower()) == "relu"


def test_a_callable_is_called_by_its_name_or_type_but_never_by_an_address() -> None:
    class Nameless:
        def __call__(self, trial: Any) -> Any:
            return trial

    class Printed(Nameless):
        def __repr__(self) -> str:
            return "printed(3)"

    assert [name_of(each) for each in (name_of, Nameless(), Printed())] == ["name_of", "Nameless", "printed(3)"]


def test_renderers_alone_have_ranks() -> None:
    flat, deep = renderer(lambda: lambda explanation: explanation), renderer(ranks=[1, 3])(lambda: lambda each: each)
    assert (flat.ranks, deep.ranks) == ((2,), (1, 3))
    assert not hasattr(metric(lambda: lambda trial: trial), "ranks")


def test_each_method_gets_the_settings_that_it_has() -> None:
    def plus(number: int = 1) -> Any:
        return lambda trial: trial + number

    def times(factor: int = 1) -> Any:
        return lambda trial: trial * factor

    registry: Registry[Any] = Registry("cnnviz.nothing")
    registry.register(metric(plus))
    words = {"forms": "a name", "configured": "a callable"}
    built = resolve(registry, ["plus", metric(times), abs], {"number": 2, "factor": 3}, **words)
    assert {name: method(-5) for name, method in built.items()} == {"plus": -3, "times": -15, "abs": 5}
    assert list(resolve(registry, abs, {}, **words)) == ["abs"]
    with pytest.raises(TypeError, match="there is no setting 'factor' in a callable"):
        resolve(registry, [abs], {"factor": 3}, **words)
    with pytest.raises(TypeError, match="3 is no nothing; give a name"):
        resolve(registry, [3], {}, **words)
