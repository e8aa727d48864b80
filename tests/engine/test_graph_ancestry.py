"""A node leads back to where a graph begins if a path of its edges does."""

from __future__ import annotations

import random
from typing import Any

import torch

from cnnviz.engine.graph_ancestry import leads_back


def slow(node: Any, begins: list[Any]) -> bool:
    return node in begins or any(slow(parent, begins) for parent, _ in node.next_functions if parent is not None)


def test_answers_are_those_of_a_search_of_every_path() -> None:
    drawn, answers = random.Random(0), []
    for _ in range(30):
        tensors = [torch.randn(2, requires_grad=True).clone() for _ in range(3)]
        for _ in range(8):
            a, b = drawn.choices(tensors, k=2)
            tensors.append(a * b if drawn.random() < 0.5 else a.exp())
        begins = [tensor.grad_fn for tensor in drawn.sample(tensors[:6], 2)]
        known: dict[Any, bool] = dict.fromkeys(begins, True)
        for tensor in drawn.sample(tensors, len(tensors)):  # later answers rest on those of before
            found = leads_back(tensor.grad_fn, known)
            assert found is slow(tensor.grad_fn, begins)
            answers.append(found)
    assert {True, False} == set(answers)


def test_a_graph_may_be_deeper_than_the_recursion_limit() -> None:
    begin = torch.ones((), requires_grad=True) * 1
    last = begin
    for _ in range(5000):
        last = last + 1
    assert leads_back(last.grad_fn, {begin.grad_fn: True})
    assert not leads_back(last.grad_fn, {torch.ones((), requires_grad=True).exp().grad_fn: True})
