"""Comparison of answers, bit by bit."""

from __future__ import annotations

import torch
from torch import Tensor

from cnnviz import Explanation


def parts(answer: Explanation) -> dict[str, Tensor]:
    return {"values": answer.values, "score": answer.score, "inputs": answer.inputs, **answer.notes}


def same(found: Explanation, expected: Explanation) -> None:
    for (name, value), wanted in zip(parts(found).items(), parts(expected).values(), strict=True):
        assert torch.equal(value, wanted), name
    assert found.recipe == expected.recipe
    assert found.options == expected.options
