"""A special pass that a model refuses is made up for by a plain one; an error that comes once is the model's own."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor

from cnnviz.engine.agreement import special_or_plain


def test_what_a_refused_pass_held_is_gone_while_the_plain_one_runs() -> None:
    held: list[weakref.ref[Tensor]] = []

    def special() -> bool:
        maps = torch.ones(3)
        held.append(weakref.ref(maps))
        raise ValueError("no")

    assert special_or_plain(special, lambda: held[0]() is None) == (True, False)


def test_an_error_that_comes_once_is_raised_itself() -> None:
    error, passes = RuntimeError("the device was lost"), 0

    def special() -> str:
        nonlocal passes
        passes += 1
        if passes == 1:
            raise error
        return "special"

    with pytest.raises(RuntimeError) as caught:
        special_or_plain(special, lambda: "plain")
    assert caught.value is error


def test_an_error_that_means_no_refusal_is_raised_at_once() -> None:
    def special() -> str:
        raise KeyError("of the model's own")

    with pytest.raises(KeyError):
        special_or_plain(special, lambda: pytest.fail("no plain pass"), (ValueError,))
