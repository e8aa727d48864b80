"""What a rule is handed: every argument that comes from the model's input, and the operation at other inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import AveragingNet, randomized, scores, slopes, tiny_inputs
from torch import Tensor, nn

from cnnviz import POINTWISE, Call, Rule, explain, gradient, rule

TARGET = [2, 0]
MET: list[Call] = []


def keeping(*operations: Any) -> Rule:
    """A rule that changes nothing, and keeps what it is handed."""

    def keep(call: Call, grad: Tensor) -> tuple[Tensor, ...]:
        MET.append(call)
        return call.vjps(grad)

    MET.clear()
    return rule(*operations, name="keeping")(keep)


class Gated(nn.Module):
    """A gate, a learned scale that is made anew from its weights, and a constant."""

    def __init__(self, multiply: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, padding=1)
        self.squeeze = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.zeros(3, 1, 1))
        self.head = nn.Linear(3, 3)
        randomized(self, 7)
        self.multiply = multiply

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        gate = self.squeeze(x.mean((2, 3))).sigmoid()[:, :, None, None]
        x = self.multiply(x, gate)
        x = x.mul(self.scale * self.scale)  # weights carry gradients too, and come from no input
        return self.head((torch.full((3, 1, 1), 0.7) * x).mean((2, 3)))


PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "operator": lambda x, gate: x * gate,
    "operator-in-place": lambda x, gate: x.__imul__(gate),
    "method": lambda x, gate: gate.mul(x),
    "method-in-place": lambda x, gate: x.mul_(gate),
    "function": lambda x, gate: torch.mul(x, gate),
    "multiply": lambda x, gate: torch.multiply(input=x, other=gate),
}


@pytest.mark.parametrize("how", PRODUCTS)
def test_all_that_comes_from_the_input_is_handed_over_and_weights_are_not(how: str) -> None:
    net, inputs = Gated(PRODUCTS[how]), tiny_inputs()
    found = explain(net, inputs, gradient(rule=keeping(torch.mul)), target=TARGET).values
    torch.testing.assert_close(found, slopes(scores(net, TARGET), inputs), rtol=0, atol=1e-8)
    shapes = [[tuple(each.shape) for each in call.inputs] for call in MET]
    whole, gate = (2, 3, 5, 6), (2, 3, 1, 1)
    assert shapes == [[whole], [whole], [gate, whole] if how == "method" else [whole, gate]]  # from the score down
    kept = dict(zip(("scores", "scale", "gate"), MET, strict=True))
    with torch.no_grad():
        x = net.first(inputs)
        expected = x * net.squeeze(x.mean((2, 3))).sigmoid()[:, :, None, None]
    torch.testing.assert_close(kept["gate"].output, expected)
    torch.testing.assert_close(kept["scale"].input, expected)
    assert not any(each.requires_grad for call in MET for each in (*call.inputs, call.output))


def test_an_operation_runs_again_at_other_inputs() -> None:
    net, inputs = Gated(torch.mul), tiny_inputs()
    explain(net, inputs, gradient(rule=keeping(torch.mul)), target=TARGET)
    call = MET[-1]
    x, gate = (torch.rand_like(each) for each in call.inputs)
    again = call.again(x, gate)
    assert torch.equal(again.output, x * gate)
    grad = torch.rand_like(again.output)
    first, second = again.vjps(grad)
    assert torch.equal(first, grad * gate)
    torch.testing.assert_close(second, (grad * x).sum((2, 3), keepdim=True))
    assert torch.equal(again.vjp(grad), first)
    torch.testing.assert_close(call.vjp(grad), grad * call.inputs[1])  # which has stayed as it was
    scaled = MET[1].again(x)  # the weights stay as they are
    torch.testing.assert_close(scaled.output, x * net.scale.detach() ** 2)


class Overwrites(nn.Module):
    """Writes over what went into its activation, which torch allows where that keeps its output."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, padding=1)
        self.head = nn.Linear(3, 3)
        randomized(self, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head(x.mul_(x.sigmoid()).mean((2, 3)))


def test_what_went_in_is_there_even_where_the_model_writes_over_it() -> None:
    net, inputs = Overwrites(), tiny_inputs()
    found = explain(net, inputs, gradient(rule=keeping(torch.sigmoid)), target=TARGET).values
    torch.testing.assert_close(found, slopes(scores(net, TARGET), inputs), rtol=0, atol=1e-8)
    torch.testing.assert_close(MET[0].input, net.first(inputs).detach())


class Shifts(nn.Module):
    """Adds 7 to what an operation gave, in its place; scores are each channel's sum."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 3
        y.add_(7)
        return y.sum((2, 3))


def test_what_came_out_is_there_even_where_the_model_writes_over_it() -> None:
    by_output = rule(torch.mul, name="by_output")(lambda call, grad: grad * call.output)
    inputs = tiny_inputs()
    values = explain(Shifts().eval(), inputs, gradient(rule=by_output), target=[1, 0]).values
    expected = torch.zeros_like(inputs)
    expected[0, 1], expected[1, 0] = 3 * inputs[0, 1], 3 * inputs[1, 0]  # 7 came later
    torch.testing.assert_close(values, expected)


def test_a_constant_that_the_model_writes_over_before_its_operation_runs_again_is_refused() -> None:
    class Masks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            mask = torch.full((2, 1, 1), 3.0, dtype=x.dtype)
            y = (x * 1).mul_(mask)
            if self.writes:
                mask.zero_()
            return y.sum((2, 3))

    net, inputs = Masks().eval(), tiny_inputs()
    net.writes = False
    found = explain(net, inputs, gradient(rule=keeping(torch.mul)), target=[1, 0]).values
    torch.testing.assert_close(found, slopes(lambda x: 3 * x.sum((2, 3))[range(2), [1, 0]], inputs))
    net.writes = True
    told = "the model has written over a tensor that mul was given, and a rule asks for that operation again"
    for method in ("deeplift", gradient(rule=keeping(torch.mul))):
        with pytest.raises(ValueError, match=told):
            explain(net, inputs, method, target=[1, 0])


LIMITED: dict[str, tuple[Callable[[Tensor], Tensor], Any]] = {
    "relu": (F.relu, (0, None)),
    "relu in place": (lambda x: torch.relu_(x * 1), (0, None)),
    "relu6": (F.relu6, (0, 6)),
    "hardtanh": (lambda x: F.hardtanh(x, -0.5, 2), (-0.5, 2)),
    "hardtanh by name": (lambda x: F.hardtanh(x, max_val=2), (-1, 2)),
    "clamp": (lambda x: x.clamp(max=0.3), (None, 0.3)),
    "clamp at zero": (lambda x: torch.clip(x, 0, 0.3), (0, 0.3)),
    "clamp_min": (lambda x: x.clamp_min(0.3), (0.3, None)),
    "clamp_max in place": (lambda x: (x * 1).clamp_max_(0.3), (None, 0.3)),
    "library": (lambda x: torch.ops.aten.clamp(x, -0.5, 2), (-0.5, 2)),
    "library's relu": (lambda x: torch.ops.aten.relu.default(x), (0, None)),
    "by hand": (lambda x: torch.where(x > 0, x, 0.0), (0, None)),
    "sigmoid": (torch.sigmoid, None),
}


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("name", LIMITED)
def test_limits_of_a_clamp_are_handed_over(name: str, reads: bool) -> None:
    curve, limits = LIMITED[name]
    met: list[Call] = []

    def keep(call: Call, grad: Tensor) -> Tensor:
        met.append(call)
        return call.vjp(grad)

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return curve(x * 1).sum((2, 3))

    kept = rule(F.relu, F.relu6, F.hardtanh, torch.clamp, torch.sigmoid, name="kept", reads_input=reads)(keep)
    inputs = tiny_inputs()
    found = explain(Net().eval(), inputs, gradient(rule=kept), target=[1, 0]).values
    assert [call.limits for call in met] == [limits]
    expected = slopes(lambda x: curve(x).sum((2, 3))[range(2), [1, 0]], inputs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


def test_several_values_and_their_indices() -> None:
    class Strongest(AveragingNet):
        def maps(self, x: Tensor) -> Tensor:
            found = super().maps(x).max(1, keepdim=True)
            assert isinstance(found, torch.return_types.max)
            pooled, places = F.max_pool2d(found.values, 2, return_indices=True)
            assert places.dtype == torch.int64
            return pooled.expand(-1, 4, -1, -1)

    net, inputs = Strongest(), tiny_inputs()
    found = explain(net, inputs, gradient(rule=keeping(torch.amax, F.max_pool2d)), target=TARGET).values
    torch.testing.assert_close(found, slopes(scores(net, TARGET), inputs), rtol=0, atol=1e-8)
    assert [tuple(call.output.shape) for call in MET] == [(2, 1, 1, 1), (2, 1, 2, 3), (2, 3, 2, 3)]


def test_what_gives_several_gradients_can_t_have_a_rule() -> None:
    class Halves(AveragingNet):
        def maps(self, x: Tensor) -> Tensor:
            return torch.cat(super().maps(x).chunk(2, 1), 1)

    with pytest.raises(TypeError, match="chunk gives 2 tensors that carry gradients, and a rule acts on one"):
        explain(Halves(), tiny_inputs(), gradient(rule=keeping(Tensor.chunk)), target=TARGET)


def test_lists_of_tensors_are_arguments_too() -> None:
    class Joined(AveragingNet):
        def maps(self, x: Tensor) -> Tensor:
            found = super().maps(x)
            return torch.cat([found[:, :2], torch.zeros_like(found[:, :1]), found[:, 3:]], dim=1)

    net, inputs = Joined(), tiny_inputs()
    found = explain(net, inputs, gradient(rule=keeping(torch.cat)), target=TARGET).values
    torch.testing.assert_close(found, slopes(scores(net, TARGET), inputs), rtol=0, atol=1e-8)
    assert [each.shape[1] for each in MET[0].inputs] == [2, 1]


def test_a_rule_that_answers_for_one_of_two_inputs_is_refused() -> None:
    @rule(torch.mul)
    def forgetful(call: Call, grad: Tensor) -> Tensor:
        return call.vjp(grad)

    told = r"rule 'forgetful' gives 1 gradients at mul, where 2 arguments come from the model's input"
    with pytest.raises(ValueError, match=told):
        explain(Gated(torch.mul), tiny_inputs(), gradient(rule=forgetful), target=TARGET)


def test_a_rule_may_mean_the_plain_gradient_where_it_has_nothing_to_do() -> None:
    net, inputs = AveragingNet(), tiny_inputs()
    plain = explain(net, inputs, "gradient", target=TARGET).values
    idle = Rule("idle", {torch.sigmoid: lambda call, grad: grad * 0}, otherwise=None)
    assert torch.equal(explain(net, inputs, gradient(rule=idle), target=TARGET).values, plain)
    with pytest.raises(LookupError, match="rule 'strict' changes nothing"):
        explain(net, inputs, gradient(rule=rule(torch.sigmoid, name="strict")(lambda call, grad: grad)), target=TARGET)


def test_the_function_that_reads_the_score_counts() -> None:
    doubled = rule(torch.tanh, name="doubled")(lambda call, grad: 2 * call.vjp(grad))
    net, inputs = AveragingNet(), tiny_inputs()

    def read(output: Tensor) -> Tensor:
        return output[:, 1].tanh()

    found = explain(net, inputs, ("gradient", gradient(rule=doubled)), target=read)
    plain, twice = (each.values for each in found.values())
    torch.testing.assert_close(twice, 2 * plain)


def test_the_model_is_left_as_it_was_under_a_rule_for_everything() -> None:
    net, inputs = Gated(torch.mul), tiny_inputs()
    before = copy.deepcopy(net.state_dict())
    explain(net, inputs, gradient(rule=keeping(torch.mul, *POINTWISE)), target=TARGET)
    assert all(torch.equal(before[name], kept) for name, kept in net.state_dict().items())
    assert all(weight.grad is None and not weight._backward_hooks for weight in net.parameters())
