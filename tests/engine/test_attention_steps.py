"""Attention that is computed at once gives the same in single steps, in which its shares exist."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnviz.engine.attention import AttentionWatch
from cnnviz.engine.operation_observer import OperationObserver
from cnnviz.engine.switch import Switchboard
from cnnviz.engine.written_out import composite, hidden

WHOLE = F.scaled_dot_product_attention


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


ALLOWED = torch.ones(5, 5, dtype=torch.bool).tril()
ALLOWED[2] = False  # a query that may read nothing
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"is_causal": True},
    "allowed": {"attn_mask": ALLOWED},
    "allowed for each head": {"attn_mask": ALLOWED.expand(2, 4, 5, 5)},
    "added": {"attn_mask": drawn(4, 5, 5, seed=5).detach()},
    "added, nothing allowed": {"attn_mask": torch.zeros(5, 5).double().masked_fill(~ALLOWED, -torch.inf)},
    "scaled": {"scale": 0.3},
    "groups of queries": {"enable_gqa": True},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_values_and_gradients_are_those_of_torch(name: str) -> None:
    keys = 2 if name == "groups of queries" else 4
    operands = drawn(2, 4, 5, 3), drawn(2, keys, 5, 3, seed=1), drawn(2, keys, 5, 6, seed=2)
    written = composite(WHOLE)
    assert written is not None
    arrives = drawn(2, 4, 5, 6, seed=3).detach()
    found = []
    for attend in (WHOLE, written.run):
        output = attend(*operands, **SETTINGS[name])
        found.append([output, *torch.autograd.grad(output, operands, arrives)])
    for expected, steps in zip(*found, strict=True):
        torch.testing.assert_close(steps, expected, rtol=1e-10, atol=1e-12)


def test_a_query_that_may_read_nothing_has_no_shares() -> None:
    x = drawn(2, 3, 5).unsqueeze(1)
    watch = AttentionWatch(x)
    with OperationObserver((), Switchboard(), lambda: [x], attention=watch):
        F.scaled_dot_product_attention(x.mT, x.mT * 2, x.mT, attn_mask=ALLOWED)
    (attention,) = watch.found
    assert attention.used
    scores = (x.mT @ x * 2 / 3**0.5).masked_fill(~ALLOWED, -torch.inf)
    expected = scores.softmax(-1).nan_to_num(0)
    torch.testing.assert_close(attention.shares, expected)
    assert torch.equal(attention.shares.sum(-1)[0, 0] > 0.5, torch.tensor([True, True, False, True, True]))


def test_rules_on_parts_are_hidden_by_rules_on_the_whole_alone() -> None:
    parts = (F.softmax, torch.matmul)
    assert hidden(parts, [[F.relu], [WHOLE]])
    assert not hidden(parts, [[F.relu], parts])
    assert not hidden((*parts, WHOLE, F.multi_head_attention_forward), [[WHOLE]])
    assert not hidden((F.relu,), [[WHOLE]])
