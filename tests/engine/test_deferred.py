"""Values that are read together at the end of a question."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cnnviz.engine.deferred import (
    Deferred,
    assumed,
    deferring,
    reads_at_once,
    rehearsed,
    require,
    settled,
    tell_if,
    uploaded,
)

YES, NO = torch.tensor(True), torch.tensor(False)


def refuses(text: str) -> Callable[[], None]:
    def refuse() -> None:
        raise ValueError(text)

    return refuse


@pytest.mark.parametrize("defers", [False, True])
def test_what_is_wrongly_assumed_is_answered_again(defers: bool) -> None:
    asked: list[list[bool]] = []

    def answer() -> list[bool]:
        found = [assumed(YES), assumed(NO), assumed(NO, expected=False), assumed(YES, expected=False)]
        asked.append(found)
        return found

    assert settled(answer, defers) == [True, False, False, True]
    assert asked[-1] == [True, False, False, True]
    assert len(asked) == (3 if defers else 1)
    assert not defers or asked[0] == [True, True, False, False]


@pytest.mark.parametrize("defers", [False, True])
def test_the_first_requirement_that_does_not_hold_is_raised(defers: bool) -> None:
    def answer() -> None:
        require(YES, refuses("holds"))
        require(NO, refuses("first"))
        require(NO, refuses("second"))

    with pytest.raises(ValueError, match="first"):
        settled(answer, defers)


def test_an_error_that_follows_from_a_value_is_told_by_its_cause() -> None:
    def answer() -> None:
        require(NO, refuses("the score is not finite"))
        raise RuntimeError("what came of it")

    with pytest.raises(ValueError, match="the score is not finite"):
        settled(answer, defers=True)


def test_an_error_that_follows_from_an_assumption_is_corrected() -> None:
    def answer() -> str:
        if assumed(NO):
            raise RuntimeError("this way can't be gone")
        return "the other way"

    assert settled(answer, defers=True) == "the other way"


def test_an_error_of_its_own_is_raised() -> None:
    def answer() -> None:
        assumed(YES)
        raise RuntimeError("its own")

    with pytest.raises(RuntimeError, match="its own"):
        settled(answer, defers=True)


def test_a_requirement_behind_a_wrong_assumption_is_not_raised() -> None:
    def answer() -> str:
        if assumed(NO):
            require(NO, refuses("of a way that is not gone"))
        return "answered"

    assert settled(answer, defers=True) == "answered"


def test_what_is_told_is_told_once() -> None:
    def answer() -> None:
        tell_if(YES, lambda: "always")
        tell_if(YES, lambda: "always")
        tell_if(NO, lambda: "never")
        if assumed(NO):
            tell_if(YES, lambda: "of a way that is not gone")

    with pytest.warns(UserWarning, match="always") as told:
        settled(answer, defers=True)
    assert [str(each.message) for each in told] == ["always"]


def test_another_way_than_was_known_is_noticed() -> None:
    """What an answer assumes may depend on what answers before it have left behind."""
    left: list[bool] = []

    def answer() -> list[bool]:
        found = [] if left else [assumed(YES), assumed(NO)]
        left.append(True)
        return [*found, assumed(YES), assumed(NO, expected=False)]

    assert settled(answer, defers=True) == [True, False]


def test_a_question_that_takes_another_way_each_time_is_read_at_once() -> None:
    rounds: list[int] = []

    def answer() -> bool:
        rounds.append(len(rounds))
        flag = torch.tensor(len(rounds) % 2 == 0)
        return assumed(flag, expected=not bool(flag)) == bool(flag)

    assert settled(answer, defers=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.bool, torch.int64])
def test_values_of_any_type_are_uploaded(dtype: torch.dtype) -> None:
    values = torch.tensor([[0, 1], [1, 0]]).to(dtype)

    def answer() -> list[Tensor]:
        return [uploaded(each, torch.device("cpu")) for each in (values, values[0, 1], values.T)]

    found, deferred = rehearsed(answer)
    with deferring(Deferred(like=deferred)):
        again = answer()
    for one, other, wanted in zip(found, again, (values, values[0, 1], values.T), strict=True):
        assert torch.equal(one, wanted)
        assert other is one


def test_a_question_inside_of_another_reads_for_itself() -> None:
    def outer() -> bool:
        assert not reads_at_once()
        assert settled(lambda: assumed(NO), defers=True) is False
        assert settled(reads_at_once, defers=False)
        assert not reads_at_once()
        return assumed(YES)

    assert settled(outer, defers=True)
    assert reads_at_once()


def test_flags_may_have_a_graph_and_any_shape_of_one_value() -> None:
    value = torch.ones(1, 1, requires_grad=True)

    def answer() -> Tensor:
        require((value > 0).all(), refuses("no"))
        require(value * 2 > 0, refuses("no"))
        return value

    assert settled(answer, defers=True) is value
