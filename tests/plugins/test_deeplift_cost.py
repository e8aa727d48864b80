"""What DeepLIFT costs: passes, backward passes, operations. Not time, which depends on the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import randomized, tiny_inputs
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cnnviz import Call, Rule, explain
from cnnviz.engine.operations import name_of
from cnnviz.engine.switch import Bound
from cnnviz.formulas import backgrounds, compared
from cnnviz_plugins.attributions._deeplift_rule import RESCALE

TARGET = [2, 0]
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    **{
        "relu": nn.ReLU,
        "relu in place": lambda: nn.ReLU(True),
        "relu6": nn.ReLU6,
        "relu6 in place": lambda: nn.ReLU6(True),
    },
    **{"hardtanh": nn.Hardtanh, "hardswish": nn.Hardswish, "hardswish in place": lambda: nn.Hardswish(True)},
    **{"hardsigmoid": nn.Hardsigmoid, "silu": nn.SiLU, "silu in place": lambda: nn.SiLU(True)},
    **{"sigmoid": nn.Sigmoid, "tanh": nn.Tanh},
}


class Common(nn.Module):
    """Convolution, batch norm, an activation, addition, concatenation, pooling by means, linear."""

    def __init__(self, activation: nn.Module, pools: int = 0) -> None:
        super().__init__()
        self.stem, self.norm, self.branch = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)
        self.activation, self.pools, self.head = activation, pools, nn.Linear(6, 3)
        randomized(self, 3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.norm(self.stem(x)))
        for _ in range(self.pools):
            x = F.max_pool2d(x, 2, 1)
        x = torch.cat([x + self.branch(x), F.avg_pool2d(x, 3, 1, 1)], 1)
        return self.head(F.adaptive_avg_pool2d(self.activation(x), 1).flatten(1))


class Counts:
    """Rows that the model was given in each pass, and backward passes: the whole one, and those of operations."""

    def __init__(self, net: nn.Module, patch: pytest.MonkeyPatch) -> None:
        self.rows: list[int] = []
        self.backwards = 0
        backward = torch.autograd.grad

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.backwards += 1
            return backward(*args, **kwargs)

        patch.setattr(torch.autograd, "grad", counted)
        net.register_forward_pre_hook(lambda module, args: self.rows.append(len(args[0])))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_batch_costs_two_forward_passes_and_one_backward_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, inputs = Common(ACTIVATIONS[name]()), tiny_inputs()
    counts = Counts(net, monkeypatch)
    found = explain(net, inputs, "deeplift", target=TARGET, baseline=0.3)
    assert counts.rows == [2, 2]  # the inputs, and as many baselines
    assert counts.backwards == 1  # no activation, batch norm or other affine operation has one of its own
    assert found.notes["completeness_gap"].abs().max() < 1e-12


def test_a_pool_takes_two_backward_passes_of_its_own_and_a_baseline_more_one_pass_of_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, inputs = Common(nn.ReLU6(True), pools=2), tiny_inputs()
    counts = Counts(net, monkeypatch)
    explain(net, inputs, "deeplift", target=TARGET)
    assert (counts.rows, counts.backwards) == ([2, 2], 1 + 2 * 2)
    counts.rows.clear()
    explain(net, inputs, "deeplift_shap", target=TARGET, baselines=torch.zeros(3, 2, 5, 6).double())
    # the first baseline by itself, with the pass of the inputs; then two at once
    assert sum(counts.rows) == 2 * (1 + 1 + 2 + 2)


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its hook for subclasses
    """The operations of torch that run inside, by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


FREE = {"detach", "alias", "view", "_unsafe_view", "expand", "t", "transpose", "as_strided", "squeeze", "unsqueeze"}
"""Operations that read and write nothing."""
WAITS = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "is_nonzero", "item"}
"""Operations for which the program waits until the device is through."""


@contextmanager
def watched() -> Iterator[tuple[Rule, dict[str, list[str]]]]:
    """DeepLIFT's rule, and the operations that it has called, by the operation that it acted on."""
    called: dict[str, list[str]] = {}

    def watching(name: str, backward: Callable[[Call, Tensor], Any]) -> Callable[[Call, Tensor], Any]:
        def seen(call: Call, grad: Tensor) -> Any:
            with Operations() as operations:
                result = backward(call, grad)
            called.setdefault(name, []).extend(each for each in operations.names if each not in FREE)
            return result

        return seen

    backwards = {operation: watching(operation.__name__, backward) for operation, backward in RESCALE.backwards.items()}
    yield Rule("watched", backwards, otherwise=None, compares=True), called


MOST = {"relu": 9, "relu6": 14, "hardtanh": 15, "hardsigmoid": 16, "hardswish": 23, "sigmoid": 15, "tanh": 18}
MOST |= {"silu": 22, "max_pool2d": 24}
"""How many operations the rule may call for an operation; each reads and writes all its values once."""


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_rule_calls_few_operations_and_waits_for_none(name: str) -> None:
    inputs = tiny_inputs()
    net = Common(ACTIVATIONS[name](), pools=1)
    with watched() as (rule, called):
        values = explain(net, inputs, compared(rule, backgrounds(0.3)), target=TARGET).values
    expected = explain(net, inputs, "deeplift", target=TARGET, baseline=0.3).values
    assert torch.equal(values, expected)
    assert called.keys() == {name.split()[0], "max_pool2d"}
    for operation, names in called.items():
        times = 2 if operation != "max_pool2d" else 1  # it is called twice
        assert len(names) <= times * MOST[operation], f"{operation}: {names}"
        assert not WAITS & {*names}, operation
        assert "where" not in names  # slow where both sides are mixed: it can't be computed in vectors


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_only_pools_have_a_graph_of_their_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated, made = Bound.evaluated, []

    def watching(bound: Bound, inner: Any) -> Any:
        made.append(name_of(bound.func))
        return evaluated(bound, inner)

    monkeypatch.setattr(Bound, "evaluated", watching)
    explain(Common(ACTIVATIONS[name](), pools=1), tiny_inputs(), "deeplift", target=TARGET)
    made = [name for name in made if name != "softmax"]  # of the probability that the answer tells
    assert [name.partition("_with")[0] for name in made] == ["max_pool2d"] * 2  # of the inputs, and of the baselines
