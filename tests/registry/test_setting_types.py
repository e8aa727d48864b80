"""A setting's value of a wrong type is refused in one line, which names the method, the setting and what it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cnnviz import attributions, explain, metric
from cnnviz.registry.registry import Method, registries
from cnnviz.registry.setting_types import fits

Ways = Literal["one", "two"]
FITTING: list[tuple[Any, Any]] = [
    *((3, int), (np.int64(3), int), (torch.tensor(3), int)),
    *((3, float), (0.5, float), (np.float32(0.5), float), (torch.tensor(0.5), float)),
    *((True, bool), (0, bool), (np.True_, bool), ("a", str), (None, int | None)),
    *(("one", Ways), ("three", Ways), ((1, 2), Sequence[int]), ([], Sequence[int]), (torch.ones(2), Sequence[float])),
    *((torch.ones(2), Tensor | str), (nn.Parameter(torch.ones(2)), Tensor), (2.5, Annotated[float, "seconds"])),
    *((..., Any), ({}, Tensor | str), (3, Callable[..., Any] | None), (..., "a name that nobody defined")),
]
UNFITTING: list[tuple[Any, Any]] = [
    *((None, int), (True, int), ("3", int), (1.5, int), (torch.ones(2), int), ([3], int), (b"3", int), (1j, int)),
    *((None, float), ("0.5", float), (torch.ones(2), float), ([0.5], float), (1j, float)),
    *((2, bool), ("no", bool), (None, bool), (0.5, bool), (3, str), (None, str)),
    *((0, Ways), (["one"], Ways), (None, Ways), ("12", Sequence[int]), (3, Sequence[int]), ([1.5], Sequence[int])),
    *((3, Annotated[str, "a name"]), ("none", int | None), ({}, Sequence[str] | None)),
]


@pytest.mark.parametrize(("value", "kind"), FITTING, ids=str)
def test_what_acts_as_an_annotated_type_fits(value: Any, kind: Any) -> None:
    assert fits(value, kind)


@pytest.mark.parametrize(("value", "kind"), UNFITTING, ids=str)
def test_other_types_do_not_fit(value: Any, kind: Any) -> None:
    assert not fits(value, kind)


def settings() -> Iterator[Any]:
    for registry in registries:
        for name in registry:
            for setting, kind in registry[name].types.items():
                if not fits(Unfit(), kind):
                    yield pytest.param(registry[name], setting, id=f"{name}({setting}=)")


class Unfit:
    """An object of a type that no setting takes."""


@pytest.mark.parametrize(("method", "setting"), [*settings()])
def test_each_setting_of_each_method_refuses_other_types(method: Method[Any], setting: str) -> None:
    required = {name: "1" for name, each in method.settings.items() if each.default is inspect.Parameter.empty}
    with pytest.raises(TypeError, match=f"^{method.name}: {setting} is an? Unfit; give .+$"):
        method(**required | {setting: Unfit()})


@pytest.mark.parametrize("given", [None, 1.5, torch.ones(2), b"gradient", [attributions["gradient"]]], ids=str)
def test_a_setting_for_a_formula_refuses_what_is_none(given: Any) -> None:
    with pytest.raises(TypeError, match=r"^smoothgrad: of is .+; give a method's name, or a formula such as"):
        attributions["smoothgrad"](of=given)


def test_a_setting_for_a_formula_takes_a_name_a_method_and_a_formula() -> None:
    net, x = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2)), torch.rand(1, 3, 4, 4)
    gradient = attributions["gradient"]
    names, method, formula = (
        explain(net.eval(), x, attributions["smoothgrad_squared"](of=of), target=1)
        for of in ("gradient", gradient, gradient())
    )
    assert torch.equal(names.values, method.values)
    assert torch.equal(names.values, formula.values)


def test_the_message_says_what_the_setting_takes() -> None:
    @metric
    def mine(
        steps: int = 8,
        by: Ways = "one",
        at: Sequence[int] | None = None,
        name: Annotated[str, 0] = "",
        maps: Sequence[Tensor] = (),
    ) -> Any:
        return steps, by, at, name, maps

    def said(**given: Any) -> str:
        with pytest.raises(TypeError) as caught:
            mine(**given)
        return str(caught.value)

    assert said(steps="word") == "mine: steps is 'word'; give an integer"
    assert said(by=2) == "mine: by is 2; give 'one' or 'two'"
    assert said(at=torch.float16) == "mine: at is a dtype; give a list of these: an integer, or None"
    assert said(maps=3) == "mine: maps is 3; give a list of these: Tensor"
    assert said(name=None) == "mine: name is None; give a string"


def test_a_default_need_not_fit_and_what_has_no_annotation_takes_anything() -> None:
    @metric
    def mine(steps: int = None, of=0.5) -> Any:  # type: ignore[assignment,no-untyped-def]  # noqa: RUF013
        return lambda trial: (steps, of)

    assert mine(steps=None, of={}).function(None) == (None, {})
