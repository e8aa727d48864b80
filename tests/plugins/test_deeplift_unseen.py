"""DeepLIFT beside parts of a model that it does not see: it is right, or says in one line what it can't see."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from faults.references import scripted
from nets import randomized
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cnnviz import explain

Part = Callable[[Tensor], Tensor]
METHODS = ("deeplift", "deeplift_shap")


class With(nn.Module):
    """A classifier with this part in its middle."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.stem, self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)
        randomized(self, 1)
        self.part = part
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(self.part(self.stem(x)).relu()).mean((2, 3)))


def pictures() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()


def found(part: Part, method: str) -> Any:
    return explain(With(part), pictures(), method, target=1)


@scripted
def scripted_gate(h: Tensor) -> Tensor:
    return torch.tanh(h) * h


def minus_flipped(h: Tensor) -> Tensor:
    return h.mean((2, 3), keepdim=True) - 2 * h.flip(1)


@scripted
def scripted_product(h: Tensor) -> Tensor:
    return h.flatten(2) @ h.flatten(2).transpose(1, 2) @ h.flatten(2)


class Cube(torch.autograd.Function):
    """A curve in a Function of the user's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * grad * x**2


def in_a_thread(part: Part) -> Part:
    def run(h: Tensor) -> Tensor:
        given: list[Tensor] = []

        def work() -> None:
            with torch.set_grad_enabled(True):
                given.append(part(h))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return given[0]

    return run


def through_numpy(h: Tensor) -> Tensor:
    return torch.from_numpy(np.tanh(h.detach().numpy()))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("part", "name"),
    [
        (scripted_gate, "Tanh|DifferentiableGraph|Mul"),
        (lambda h: scripted_product(h).reshape(h.shape), "Bmm|DifferentiableGraph"),
        (Cube.apply, "Cube"),
        (in_a_thread(torch.sigmoid), "Sigmoid"),
        (in_a_thread(lambda h: h * (h > 0)), "Mul"),
        (in_a_thread(lambda h: torch.where(h > 0, h, h.flip(1))), "Where"),
        (in_a_thread(lambda h: F.layer_norm(h, h.shape[1:])), "NativeLayerNorm"),
        (in_a_thread(lambda h: F.conv2d(h, h[0].mean((1, 2)).reshape(4, 1, 1, 1).expand(4, 4, 1, 1))), "Convolution"),
    ],
)
def test_a_curve_that_is_not_seen_is_refused(part: Part, name: str, method: str) -> None:
    with pytest.raises(LookupError, match=rf"^rule 'deeplift' can't act on ({name}) in With: [^\n]*$"):
        found(part, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("part", "what"),
    [
        (lambda h: h + through_numpy(h), "add is given values"),
        (lambda h: torch.cat([h[:, :2], through_numpy(h)[:, 2:]], 1), "cat is given values"),
        (lambda h: h + through_numpy(h).cos(), "add is given values"),
        (lambda h: h * torch.tensor(h.detach().flatten().tolist()).reshape(h.shape), "mul is given values"),
        (lambda h: h * float(h.detach()[0, 0, 0, 0]), "mul is given numbers"),
        (lambda h: h.roll(int(h.detach()[0, 0, 0].argmax()) + 1, 3), "roll is given numbers"),
    ],
)
def test_values_made_of_the_input_elsewhere_are_refused(part: Part, what: str, method: str) -> None:
    with pytest.raises(ValueError, match=rf"^{what} that are made of the input outside of torch's functions[^\n]*$"):
        found(part, method)


CONSTANT = torch.linspace(-1, 1, 4).double()[:, None, None]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("part", "plain"),
    [
        (in_a_thread(lambda h: h.mean((2, 3), keepdim=True) - h.flip(1) - h.flip(1)), minus_flipped),
        (in_a_thread(lambda h: F.avg_pool2d(h, 2)), lambda h: F.avg_pool2d(h, 2)),
        (lambda h: torch.ops.aten.tanh(h), torch.tanh),
        (lambda h: torch.ops.aten.mul.Tensor(h, h), torch.square),
        (lambda h: torch.vmap(lambda one: one.flip(0) + 1)(h), lambda h: h.flip(1) + 1),
        (lambda h: checkpoint(torch.sigmoid, h, use_reentrant=False), torch.sigmoid),
        (lambda h: h * torch.from_numpy(CONSTANT.numpy()), lambda h: h * CONSTANT),
        (lambda h: h.mul_(2)[:, 1:].tanh_()._base, lambda h: torch.cat([2 * h[:, :1], (2 * h[:, 1:]).tanh()], 1)),
    ],
)
def test_what_is_linear_or_seen_is_right(part: Part, plain: Part, method: str) -> None:
    torch.testing.assert_close(found(part, method).values, found(plain, method).values, rtol=0, atol=1e-12)
    assert found(plain, method).notes["completeness_gap"].abs().max() < 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_a_question_asked_by_the_target_function_once(method: str) -> None:
    inner, asked = With(torch.sigmoid), []

    def target(output: Tensor) -> Tensor:
        if not asked:
            asked.extend(explain(inner, pictures(), each, target=0).values for each in ("gradient", method))
        return output.softmax(1)[:, 1]

    values = explain(With(torch.tanh), pictures(), method, target=target).values
    expected = explain(With(torch.tanh), pictures(), method, target=lambda output: output.softmax(1)[:, 1]).values
    torch.testing.assert_close(values, expected, rtol=0, atol=0)
    for each, given in zip(("gradient", method), asked, strict=True):
        torch.testing.assert_close(given, explain(inner, pictures(), each, target=0).values, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_takes_gradients_of_itself_is_refused(method: str) -> None:
    def slope(h: Tensor) -> Tensor:
        (grad,) = torch.autograd.grad(h.pow(3).sum(), h, create_graph=True)
        return grad

    with pytest.raises(ValueError, match="takes gradients inside of forward"):
        found(slope, method)


@pytest.mark.parametrize(
    "name",
    [
        *("alexnet", "squeezenet1_1", "resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "mnasnet0_5", "vit"),
        *("densenet121", "efficientnet_b0", "googlenet", "regnet_y_400mf", "convnext_tiny", "swin"),
    ],
)
def test_no_false_alarm(name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    if name == "vit":
        net = models.VisionTransformer(64, 16, 2, 2, 16, 32)
    elif name == "swin":
        net = models.SwinTransformer([4, 4], 8, [2, 2], [1, 2], [4, 4], num_classes=10)
    else:
        net = models.get_model(name, weights=None, **({"init_weights": False} if name == "googlenet" else {}))
    for parameter in net.parameters():  # torchvision's heads begin at zero
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    result = explain(net.eval(), x, "deeplift", target=1, baseline=0.1)
    with torch.no_grad():
        rise = (net(x) - net(torch.full_like(x, 0.1)))[:, 1]
    assert result.notes["completeness_gap"].abs() <= 1e-4 * rise.abs() + 1e-6


@pytest.mark.parametrize("method", ["deeplift", "gradient"])
def test_attention_without_a_derivative_is_refused_in_one_line(method: str) -> None:
    class Native(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.of = randomized(nn.MultiheadAttention(8, 2, batch_first=True), 1)

        def forward(self, x: Tensor) -> Tensor:
            weights = (self.of.in_proj_weight, self.of.in_proj_bias, self.of.out_proj.weight, self.of.out_proj.bias)
            return torch._native_multi_head_attention(x, x, x, 8, 2, *weights, None, False)[0].mean(1)

    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1)).double()
    with pytest.raises(LookupError, match=r"^PyTorch has no derivative of _native_multi_head_attention, [^\n]*$"):
        explain(Native().eval(), x, method, target=1)


def test_a_softmax_of_large_logits_sums_to_zero_in_single_precision() -> None:
    net = nn.Sequential(nn.Linear(20, 100), nn.ReLU(), nn.Linear(100, 10), nn.Softmax(1)).eval()
    for parameter in net.parameters():
        nn.init.constant_(parameter, float(parameter.ndim > 1))
    x = 100 * torch.randn(8, 20, generator=torch.Generator().manual_seed(0))
    values = explain(net, x, "deeplift", target=2).values
    assert (net(x) == net(0 * x)).all()  # the logits of all classes are equal
    assert values.sum(1).abs().max() < 1e-3
