"""Renderers declare what they are the default for; the core knows none of them by name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cnnviz import Explanation, renderer, renderers
from cnnviz.registry.default_renderer import default_renderer

Draw = Callable[[Explanation], NDArray[np.uint8]]


@renderer(ranks=(2, 4), default_for="coarse")
def aaa_coarse() -> Draw:
    """A renderer of this test."""
    return lambda explanation: np.zeros((len(explanation), 1, 1, 3), np.uint8)


@renderer(ranks=(4,), default_for="fine")
def zzz_fine() -> Draw:
    """Another one."""
    return lambda explanation: np.ones((len(explanation), 1, 1, 3), np.uint8)


@pytest.fixture
def registered() -> Iterator[None]:
    mine = (aaa_coarse, zzz_fine)
    for method in mine:
        renderers.register(method)
    yield
    for method in mine:
        renderers.plugins.unregister(name=method.name)
        del renderers._methods[method.name], renderers._origins[method.name]


@pytest.mark.parametrize(
    ("rank", "kind", "name"),
    [
        (0, "coarse", "line"),
        (1, "coarse", "line"),
        (1, "fine", "line"),
        (2, "coarse", "overlay"),
        (2, "fine", "grayscale"),
        (3, "coarse", "slices"),
        (3, "fine", "slices"),
        (4, "fine", None),
        (-1, "coarse", None),
    ],
)
def test_each_kind_of_input_has_its_default(rank: int, kind: Any, name: str | None) -> None:
    assert default_renderer(rank, kind) == name


@pytest.mark.usefixtures("registered")
def test_a_plugin_may_be_the_default_of_what_cnnviz_does_not_draw_but_never_takes_its_place() -> None:
    assert default_renderer(2, "coarse") == "overlay"
    assert default_renderer(4, "coarse") == "aaa_coarse"
    assert default_renderer(4, "fine") == "zzz_fine"
    inputs = torch.zeros(1, 1, 2, 2, 2, 2)
    fine = Explanation(inputs, inputs, None, torch.ones(1), "m()")
    assert fine.render().tolist() == [[[[1, 1, 1]]]]


def test_a_method_s_own_renderer_comes_before_the_default() -> None:
    inputs = torch.rand(1, 3, 4, 4)
    explanation = Explanation(inputs, inputs, None, torch.ones(1), "m()", renderer="color")
    assert explanation.usual_renderer == "color"


def test_what_is_hidden_or_does_not_load_is_no_default() -> None:
    code = (
        "from importlib.metadata import EntryPoint; from unittest import mock\n"
        "from cnnviz.registry.default_renderer import default_renderer\n"
        "with mock.patch.object(EntryPoint, 'load', side_effect=ImportError): print(default_renderer(3, 'fine'))\n"
        "print(default_renderer(3, 'fine'), default_renderer(2, 'fine'))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"CNNVIZ_BLOCK": "grayscale"}
    )
    assert ran.stdout == "None\nslices None\n"
