"""What a question gets does not depend on what else is asked with it, or was before, or on the memory budget."""

from __future__ import annotations

import copy
import gc
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cnnviz
from cnnviz import Run, activation, explain, gradient, image, lift, over, toward
from cnnviz.formulas import bias_share, noisy, path
from cnnviz.formulas.expr import Constant
from cnnviz.registry.registry import Registry
from cnnviz.run.options import RunOptions

Forward = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    def __init__(self, forward: Forward) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.c1, self.c2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.id, self.relu, self.fc = nn.Identity(), nn.ReLU(inplace=True), nn.Linear(4, 5)
        self.run = forward
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def plain(net: Net, x: Tensor) -> Tensor:
    scores: Tensor = net.fc(net.relu(net.c2(net.relu(net.c1(x)))).mean((2, 3)))
    return scores


def cut(net: Net, x: Tensor) -> Tensor:
    y = net.c1(x)
    with torch.no_grad():
        gate = net.c2(net.id(y * 1) + y)
    scores: Tensor = net.fc((y * gate.sigmoid()).mean((2, 3)))
    return scores


def restoring(net: Net, x: Tensor) -> Tensor:
    with torch.enable_grad():
        y = net.c1(x)
    scores: Tensor = net.fc((net.c2(y) + y).mean((2, 3)))
    return scores


def aliased(net: Net, x: Tensor) -> Tensor:
    y = net.c1(x)
    kept = net.id(y)
    y.relu_()
    scores: Tensor = net.fc((net.c2(y) + kept).mean((2, 3)))
    return scores


def as_statement(net: Net, x: Tensor) -> Tensor:
    y = net.c1(x)
    net.relu(y)
    y.mul_(2)
    scores: Tensor = net.fc(y.mean((2, 3)))
    return scores


def batch() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def values(net: nn.Module, formula: Any, **settings: Any) -> Tensor:
    settings = {"target": [1, 2]} | settings
    return explain(net, batch(), formula, **settings).values


@pytest.mark.parametrize("forward", [plain, cut, restoring, aliased])
@pytest.mark.parametrize("beside", [activation("id"), gradient("c2"), activation("c2"), gradient()])
def test_a_layers_gradient_is_the_same_whatever_is_asked_beside_it(forward: Forward, beside: Any) -> None:
    if (beside == activation("id") and forward in (plain, restoring)) or (forward, beside) == (cut, gradient("c2")):
        with pytest.raises((LookupError, ValueError), match=r"did not run|does not depend"):
            explain(Net(forward), batch(), [gradient("c1"), beside], target=[1, 2])
        return
    alone = values(Net(forward), gradient("c1"))
    together = explain(Net(forward), batch(), [gradient("c1"), beside], target=[1, 2])
    torch.testing.assert_close(together["cnnviz.gradient('c1')"].values, alone)


def test_watching_a_layer_leaves_what_the_model_computes() -> None:
    net = Net(aliased)
    expected = net(batch())[[0, 1], [1, 2]]
    for formula in (activation("id"), gradient("id"), "grad_cam"):
        settings = {"layer": "id"} if formula == "grad_cam" else {}
        torch.testing.assert_close(explain(net, batch(), formula, target=[1, 2], **settings).score, expected)


def test_a_layer_in_place_is_kept_as_it_was() -> None:
    net = Net(as_statement)
    torch.testing.assert_close(values(net, activation("relu")), net.c1(batch()).relu().detach())
    slope = net.fc.weight[[1, 2]].detach()[..., None, None] / 64 * 2
    torch.testing.assert_close(values(net, gradient("relu")), slope.expand(-1, -1, 8, 8))


@pytest.mark.parametrize("memory", [1, None])
def test_constants_of_each_item_go_with_their_item(memory: int | None) -> None:
    weights = torch.rand(2, 1, 8, 8)
    noiseless = noisy(4, 0.0)
    found = values(Net(plain), over(gradient() * weights, noiseless), memory=memory)
    torch.testing.assert_close(found, values(Net(plain), gradient()) * weights)
    aimed = over(toward(gradient(), Constant(torch.tensor([1, 2]))), noiseless)
    torch.testing.assert_close(values(Net(plain), aimed, target=0, memory=memory), values(Net(plain), gradient()))
    baseline = torch.rand(2, 3, 8, 8)
    integrated = cnnviz.attributions["integrated_gradients"](baseline=baseline, steps=3)
    found = values(Net(plain), over(integrated, noiseless), memory=memory)
    torch.testing.assert_close(found, values(Net(plain), integrated))


def test_too_few_targets_or_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"targets \(1,\) for 2 inputs; give one for each"):
        Run(Net(plain), batch(), torch.tensor([1])).gradient()
    with pytest.raises(ValueError, match="3 other inputs for a batch of 2; give whole batches"):
        Run(Net(plain), batch(), torch.tensor([1, 2])).at(torch.randn(3, 3, 8, 8))


def test_a_baseline_of_another_layout_is_refused() -> None:
    turned = lift(lambda inputs: inputs.movedim(1, -1))(image())
    with pytest.raises(ValueError, match=r"the baseline is \(2, 8, 8, 3\), which does not fit"):
        values(Net(plain), cnnviz.attributions["integrated_gradients"](baseline=turned, steps=2))


def test_another_class_is_served_beyond_the_plan() -> None:
    expected = values(Net(plain), gradient(), target=3)

    def late(run: Run) -> Tensor:
        run.gradient()
        return toward(gradient(), 3)(run)

    def at_once(run: Run) -> Tensor:
        return toward(gradient(), 3)(run)

    for formula in (late, at_once):
        torch.testing.assert_close(values(Net(plain), formula), expected)

    def shares(run: Run) -> Tensor:
        run.gradient()
        return torch.ones_like(run.inputs) * toward(bias_share(), 3)(run)[:, None, None, None].float()

    assert (values(Net(plain), shares) != 0).all()


def test_seeds_have_nothing_in_common() -> None:
    def drawn(seed: int, copies: int = 1) -> Tensor:
        run = Run(Net(plain), batch(), 0, options=RunOptions(seed=seed))  # type: ignore[arg-type]
        run.copies = copies
        return (noisy(5, 1.0).draw(run, 0, 5) - batch()).flatten(1)

    pairs = torch.corrcoef(torch.cat([drawn(0), drawn(1), drawn(0, copies=5), drawn(2**64 - 5)]))
    assert (pairs - torch.eye(20)).abs().max() < 0.3
    torch.testing.assert_close(drawn(7), drawn(7))


def test_generators_of_torch_are_there_for_plugins() -> None:
    run = Run(Net(plain), batch(), 0, options=RunOptions(seed=2**64 - 5))  # type: ignore[arg-type]
    by_seed = torch.Generator().manual_seed(2**64 - 5)
    assert torch.equal(torch.rand(9, generator=run.generator), torch.rand(9, generator=by_seed))
    numbered = [torch.rand(9, generator=run.generator_of(*numbers)) for numbers in ((0,), (1,), (0, 1))]
    assert len({tuple(drawn.tolist()) for drawn in (*numbered, torch.rand(9, generator=run.generator))}) == 4
    assert torch.equal(torch.rand(9, generator=run.generator_of(0, 1)), numbered[2])


def test_numbers_of_another_type_are_another_formula() -> None:
    tenfold = lift(lambda grad, k: grad * 10 if k is True else grad * k)
    found = explain(Net(plain), batch(), [tenfold(gradient(), 1), tenfold(gradient(), True)], target=0)
    one, ten = (each.values for each in found.values())
    torch.testing.assert_close(ten, 10 * one)


def test_two_methods_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two attributions are called '<lambda>'; ask for them one by one"):
        explain(Net(plain), batch(), [lambda run: run.gradient(), lambda run: run.gradient() * 2], target=0)


def test_notes_of_one_name_are_numbered() -> None:
    integrated = cnnviz.attributions["integrated_gradients"]
    both = explain(Net(plain), batch(), integrated(steps=2) - integrated(steps=2, baseline="blur"), target=0).notes
    alone = [explain(Net(plain), batch(), integrated(steps=2, baseline=each), target=0).notes for each in (0.0, "blur")]
    torch.testing.assert_close(both["completeness_gap"], alone[0]["completeness_gap"])
    torch.testing.assert_close(both["completeness_gap_2"], alone[1]["completeness_gap"])


def test_an_explanation_keeps_its_own_inputs(tmp_path: Any) -> None:
    inputs = batch()
    kept = explain(Net(plain), inputs, image(), target=0)
    inputs.zero_()
    torch.testing.assert_close(kept.inputs, batch())
    kept.save(tmp_path / "kept.safetensors")
    torch.testing.assert_close(cnnviz.Explanation.load(tmp_path / "kept.safetensors").values, batch())


def test_weights_of_a_path_can_not_be_spoilt() -> None:
    run = Run(Net(plain), batch(), torch.tensor([1, 2]))
    path(4).weights(run).mul_(0)
    assert path(4).weights(run).sum() == pytest.approx(1)


def layers_in_a_row() -> nn.Sequential:
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 5, 3, bias=False), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 5, bias=False)).eval()


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_the_automatic_layer_depends_on_the_network_alone(scale: float) -> None:
    net = layers_in_a_row()
    with torch.no_grad():
        for layer in (net[2], net[6]):
            layer.weight.mul_(scale)  # type: ignore[operator, union-attr]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cnnviz.formulas.MapWarning)  # the map of zeros may be zero
        explain(net, torch.zeros(1, 3, 8, 8), "grad_cam")
        assert explain(net, batch(), "grad_cam").recipe == "grad_cam(layer='3')"


def test_the_automatic_layer_of_an_exchanged_part_is_found_anew() -> None:
    net = layers_in_a_row()
    for turn in range(12):
        net[3] = nn.Identity() if turn % 2 else nn.ReLU()
        gc.collect()
        assert explain(net, batch(), "grad_cam").recipe == f"grad_cam(layer='{2 if turn % 2 else 3}')"


def test_a_rectifier_in_place_behind_dropout_is_a_layer() -> None:
    parts = [nn.Conv2d(3, 4, 3), nn.Dropout(), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    net = nn.Sequential(*parts, nn.Linear(4, 5)).eval()
    assert explain(net, batch(), "grad_cam").recipe == "grad_cam(layer='2')"


def test_a_layer_under_two_names_answers_to_both() -> None:
    shared = nn.Conv2d(4, 4, 3, padding=1)
    last = [nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
    net = nn.Sequential(nn.Conv2d(3, 4, 3), shared, nn.ReLU(), shared, *last).eval()
    by_second = values(net, "grad_cam", layer="3")
    torch.testing.assert_close(by_second, values(net, "grad_cam", layer="1"))


def test_class_names_of_digits_are_names() -> None:
    names = ("1", "2", "3", "4", "5")
    assert explain(Net(plain), batch(), "gradient", target="1", categories=names).target.tolist() == [0, 0]  # type: ignore[union-attr]
    assert explain(Net(plain), batch(), "gradient", target="0", categories=names).target.tolist() == [0, 0]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "addition",
    [
        lambda net, y: nn.functional.pad(y, (1, 1), value=1.0),
        lambda net, y: torch.cat([y[:, :2], torch.ones_like(y[:, :2])], 1),
        lambda net, y: y * y,
        lambda net, y: nn.functional.pad(y, (1, 1, 1, 1)),
    ],
    ids=["padded with ones", "beside ones", "squared", "padded"],
)
def test_what_operations_add_is_not_lost(addition: Callable[[Net, Tensor], Tensor]) -> None:
    net = Net(lambda net, x: net.fc(net.c2(addition(net, net.c1(x))).mean((2, 3))))
    found = explain(net, batch(), "fullgrad", target=[1, 2])
    torch.testing.assert_close(found.notes["completeness_gap"], torch.zeros(2, dtype=torch.float64), atol=1e-6, rtol=0)


def assigned_to(y: Tensor) -> Tensor:
    y[:, 0] = 3.0
    return y


def pasted(y: Tensor) -> Tensor:
    canvas = torch.zeros_like(y, requires_grad=False)
    canvas[:, :1].copy_(y[:, :1])
    return canvas


@pytest.mark.parametrize("assign", [assigned_to, pasted])
def test_an_assignment_into_a_part_is_refused_by_fullgrad(assign: Callable[[Tensor], Tensor]) -> None:
    net = Net(lambda net, x: net.fc(assign(net.c1(x) * 1).mean((2, 3))))
    with pytest.raises(LookupError, match="an assignment into part of a tensor"):
        values(net, "fullgrad")


def test_a_part_that_is_copied_into_another_is_counted_by_fullgrad() -> None:
    def copied(net: Net, x: Tensor) -> Tensor:
        y = net.c1(x) * 1
        y[:, 0].copy_(y[:, 1])
        scores: Tensor = net.fc(y.mean((2, 3)))
        return scores

    gap = explain(Net(copied), batch(), "fullgrad", target=[1, 2]).notes["completeness_gap"]
    torch.testing.assert_close(gap, torch.zeros(2, dtype=torch.float64), atol=1e-6, rtol=0)


def test_fullgrad_in_several_threads() -> None:
    net, found = Net(lambda net, x: net.fc(nn.functional.silu(net.c2(net.c1(x))).mean((2, 3)))), []
    expected = values(net, "fullgrad")

    def ask() -> None:
        for _ in range(10):
            found.append(torch.equal(values(net, "fullgrad"), expected))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 40


def test_methods_registered_by_threads_are_all_there() -> None:
    registry: Any = Registry("cnnviz.attributions.none")

    def register(first: int) -> None:
        for number in range(first, first + 25):

            def method() -> Any:
                return gradient()

            method.__name__ = f"method_{number}"
            registry.register(cnnviz.attribution(method))

    threads = [threading.Thread(target=register, args=(first,)) for first in (0, 25, 50, 75)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(registry) == 100


def test_copies_of_a_model_are_models_of_their_own() -> None:
    net = layers_in_a_row()
    assert explain(copy.deepcopy(net), batch(), "grad_cam").recipe == explain(net, batch(), "grad_cam").recipe
