"""Random networks of all operations with a region rule: changed inputs and layers score as in whole passes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from compare_random_networks import compared, outcome_of
from random_networks import RandomNet

from cnnviz.incremental import region_rules
from cnnviz.incremental.region_rules import RULES

COUNT, PARTS = 250, 10
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch advises others, of spellings and paddings


@pytest.fixture
def met(monkeypatch: pytest.MonkeyPatch) -> Counter[Any]:
    """How often each rule gave a result, by its name."""
    found: Counter[Any] = Counter()
    for operation, rule in list(RULES.items()):

        def counted(*args: Any, rule: Any = rule) -> Any:
            result = rule(*args)
            found[rule.__name__] += result is not None
            return result

        monkeypatch.setitem(RULES, operation, counted)
    return found


@pytest.mark.parametrize("part", range(PARTS))
def test_scores_are_those_of_whole_passes(part: int) -> None:
    outcomes = [outcome_of(seed) for seed in range(part, COUNT, PARTS)]
    for outcome in outcomes:
        assert outcome.right, f"{outcome}\n{RandomNet(outcome.seed).text()}"
    # of the others some write through views, which is not replayed
    assert sum(outcome.verified > 0 for outcome in outcomes) >= 0.8 * len(outcomes)


def test_every_rule_is_met(met: Counter[Any]) -> None:
    for seed in range(60):
        outcome_of(seed)
    assert set(met) == {rule.__name__ for rule in {*ORIGINAL.values()}}
    assert min(met.values()) > 0, met


ORIGINAL = dict(RULES)


def test_one_seed_is_one_network() -> None:
    one, again, other = (RandomNet(seed) for seed in (3, 3, 4))
    assert one.text() == again.text() != other.text()
    assert torch.equal(one(one.inputs)[0], again(again.inputs)[0])


def test_networks_differ_in_all_that_is_drawn() -> None:
    networks = [RandomNet(seed) for seed in range(80)]
    assert {net.inputs.ndim - 2 for net in networks} == {1, 2, 3}
    assert {net.several for net in networks} == {True, False}
    assert min(len(net.steps) for net in networks) >= 1
    assert max(len(net.steps) for net in networks) == 10
    assert any(len({*net.steps}) < len(net.steps) for net in networks), "a module runs twice"
    assert any(max(sources) < place for net in networks for place, sources in enumerate(net.sources)), "skips"


def break_rule(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rule gives is 1 % too large."""
    right = getattr(region_rules, wrong)

    def doubled(chunk: Any, op: Any, func: Any, args: Any, kwargs: Any) -> Any:
        region = right(chunk, op, func, args, kwargs)
        return region if region is None else chunk.region(op, region.boxes, region.inside * 1.01)

    for operation, rule in ORIGINAL.items():
        if rule is right:
            monkeypatch.setitem(RULES, operation, doubled)


@pytest.mark.parametrize("wrong", ["pointwise", "convolution", "max_pooling"])
def test_a_wrong_rule_is_noticed(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    break_rule(wrong, monkeypatch)
    assert not all(compared(seed).right for seed in range(40))


def test_a_wrong_answer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only by the verification, which is asked not to look."""
    monkeypatch.setattr("cnnviz.incremental.replay.Replay.agrees", lambda self, number, score: True)
    break_rule("pointwise", monkeypatch)
    outcomes = [outcome_of(seed) for seed in range(30)]
    assert max(outcome.error for outcome in outcomes) > 1e-6
    assert not any(outcome.right for outcome in outcomes if outcome.error > 1e-6)
