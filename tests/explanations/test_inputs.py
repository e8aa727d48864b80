"""What a user gives as inputs and further arguments is what the model is called with."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from nets import AveragingNet, randomized, tiny_inputs
from quick import ATTENDING, quick
from torch import Tensor, nn
from torchvision import tv_tensors

import cnnviz
from cnnviz import Run, evaluate, explain
from cnnviz.explanations import shared


class Meta(torch.Tensor):
    """A subclass with constructors of its own, as MONAI's MetaTensor has them."""

    def new_empty(self, size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Any:
        return super().new_empty(size, dtype=dtype, device=device, requires_grad=requires_grad)


def meta(tensor: Tensor) -> Meta:
    return tensor.as_subclass(Meta)


class ImageAndTable(nn.Module):
    """The score of class k: tanh of the table's k-th reading, times the mean of a smooth map of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Softplus())
        self.read = nn.Linear(4, 3)
        randomized(self)

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        return self.maps(image).mean((2, 3)) * self.read(table).tanh()


def table(items: int = 2) -> Tensor:
    return torch.randn(items, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


SCORES_ALONE = ("feature_ablation", "kernel_shap", "lime", "occlusion", "rise", "shapley_sampling")
GRADIENTS = ("gradient", "input_x_gradient", "integrated_gradients", "smoothgrad", "gradient_shap", "deeplift")

# Lists


def with_mask(net: nn.Module) -> nn.Module:
    class WithMask(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return self.net(x if mask is None else x * mask)

    return WithMask().eval()


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("batched", [False, True])
def test_a_list_of_tensors_is_one_batch(rank: int, batched: bool) -> None:
    net, inputs = with_mask(AveragingNet(rank)), tiny_inputs(rank, 3)
    listed = [each[None] if batched else each for each in inputs]
    answer = explain(net, listed, "gradient", target=1)
    torch.testing.assert_close(answer.inputs, inputs, rtol=0, atol=0)
    torch.testing.assert_close(answer.values, explain(net, inputs, "gradient", target=1).values, rtol=0, atol=0)


def test_a_list_of_single_gray_pictures_is_stacked() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double().eval()
    pictures = tiny_inputs(2, 3, channels=1)
    assert explain(net, list(pictures), "gradient", target=0).inputs.shape == (3, 1, 5, 6)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ([torch.zeros(2, 5, 6), torch.zeros(2, 6, 6)], r"are \(2, 5, 6\) and \(2, 6, 6\); bring them to one shape"),
        ([torch.zeros(2, 2, 5, 6), torch.zeros(2, 2, 5, 6)], "several inputs of one call are a tuple"),
        ([], "there are no inputs"),
    ],
)
def test_a_list_that_is_no_batch_is_refused(listed: list[Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explain(AveragingNet(), [each.double() for each in listed], "gradient", target=0)


def test_a_list_whose_meaning_the_model_does_not_tell_is_refused() -> None:
    net = nn.Linear(4, 3).eval()
    with pytest.raises(ValueError, match=r"these are \(1, 4\); give a tensor, torch.stack"):
        explain(net, [torch.zeros(1, 4), torch.zeros(1, 4)], "gradient", target=0)
    assert len(explain(net, [torch.ones(4), torch.zeros(4)], "gradient", target=0)) == 2


def test_what_is_no_input_is_told() -> None:
    with pytest.raises(
        TypeError, match=r"the input is a generator; give a tensor \(N, C, \*spatial\), pictures or a DataLoader"
    ):
        explain(AveragingNet(), (each for each in tiny_inputs()), "gradient", target=0)


def test_pictures_beside_tensors_in_a_list_are_refused() -> None:
    with pytest.raises(
        TypeError, match="the input is a str, beside a Tensor; give a list of pictures or a list of tensors"
    ):
        explain(AveragingNet(), [tiny_inputs()[0], "cat.png"], "gradient", target=0)


# Subclasses of tensors


@pytest.mark.parametrize("method", sorted(cnnviz.attributions))
@pytest.mark.parametrize("wrap", [meta, tv_tensors.Image, nn.Parameter], ids=["own", "tv_tensor", "parameter"])
def test_a_subclass_is_explained_as_its_plain_tensor(method: str, wrap: Callable[[Tensor], Tensor]) -> None:
    net, inputs = AveragingNet(attention=method in ATTENDING), tiny_inputs()
    expected = explain(net, inputs, method, target=1, **quick(method))
    answer = explain(net, wrap(inputs), method, target=1, **quick(method))
    assert type(answer.values) is Tensor
    assert type(answer.inputs) is Tensor
    torch.testing.assert_close(answer.values, expected.values, rtol=0, atol=0)
    assert not answer.values.requires_grad


def test_a_subclass_as_baseline_segments_or_argument_is_its_plain_tensor() -> None:
    net, inputs = ImageAndTable(), tiny_inputs()
    baseline = torch.full((2, 5, 6), 0.3, dtype=torch.float64)
    for method in ("occlusion", "integrated_gradients", "deeplift", "kernel_shap"):
        settings = quick(method)
        expected = explain(net, (inputs, table()), method, target=1, baseline=baseline, **settings).values
        found = explain(net, (inputs, meta(table())), method, target=1, baseline=meta(baseline), **settings).values
        assert type(found) is Tensor
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_subclasses_as_target_and_mask_are_plain() -> None:
    net, inputs = AveragingNet(), tiny_inputs()
    answer = explain(net, inputs, "gradient", target=meta(torch.tensor([1, 2])))
    assert type(answer.target) is Tensor
    masks = tv_tensors.Mask(torch.arange(60).view(2, 5, 6) % 2)
    found = evaluate(answer, "roc_auc", masks=masks)
    assert type(found) is Tensor
    torch.testing.assert_close(found, evaluate(answer, "roc_auc", masks=masks.numpy()), rtol=0, atol=0)


def test_a_run_takes_the_values_of_a_subclass() -> None:
    run = Run(AveragingNet(), meta(tiny_inputs()), torch.tensor([1, 1]))
    assert type(run.inputs) is Tensor
    assert type(run.gradient()) is Tensor


def test_a_subclass_that_holds_other_tensors_is_refused() -> None:
    from torch.testing._internal.two_tensor import TwoTensor

    with pytest.raises(TypeError, match="a TwoTensor holds its values in other tensors; give an ordinary tensor"):
        explain(AveragingNet(), TwoTensor(tiny_inputs(), tiny_inputs()), "gradient", target=0)


# Further arguments


class Sizes(NamedTuple):
    rows: Tensor
    factor: float


class Particular(nn.Module):
    """Takes everything that is no explained tensor, and needs each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.embedding = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 3)
        randomized(self)

    def forward(
        self,
        ids: Tensor,
        image: Tensor,
        scale: float,
        nothing: None,
        parts: list[Tensor],
        *,
        mode: str,
        square: bool = False,
        options: dict[str, Any],
        sizes: Sizes,
        shift: Tensor,
    ) -> Tensor:
        assert nothing is None
        assert mode == "mean"
        maps = self.conv(image) * scale + shift[None, :, None, None]
        maps = maps.square() if square else maps
        read = maps.tanh().mean((2, 3)) + self.embedding(ids).mean(1)
        read = read * parts[0] + parts[1] + options["row"][0][:, None] * sizes.factor + sizes.rows
        parts[1].zero_()  # what the model is given is its own
        return self.head(read)


def particular() -> dict[str | int, Any]:
    generator = torch.Generator().manual_seed(9)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return {
        2: 0.7,
        3: None,
        4: [draw(3, 4), draw(3, 1)],
        "mode": "mean",
        "square": True,
        "options": {"row": (draw(3),), "name": "some"},
        "sizes": Sizes(draw(3, 4), 0.5),
        "shift": draw(4),
    }


IDS = torch.tensor([[0, 5], [2, 2], [3, 1]])


def by_hand(net: nn.Module, arguments: dict[str | int, Any], ids: Tensor, item: int) -> Callable[[Tensor], Tensor]:
    """The network as a function of one picture, its other arguments cut to one row by hand."""

    def call(image: Tensor) -> Tensor:
        many = len(image)

        def row(tensor: Tensor) -> Tensor:
            return tensor[item : item + 1].repeat(many, *(1,) * (tensor.ndim - 1))

        return net(
            row(ids),
            image,
            arguments[2],
            arguments[3],
            [row(each) for each in arguments[4]],
            mode=arguments["mode"],
            square=arguments["square"],
            options={"row": (row(arguments["options"]["row"][0]),), "name": "some"},
            sizes=Sizes(row(arguments["sizes"].rows), arguments["sizes"].factor),
            shift=arguments["shift"],
        )

    return call


class OfOne(nn.Module):
    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.call = call

    def forward(self, image: Tensor) -> Tensor:
        return self.call(image)


@pytest.mark.parametrize("method", [*SCORES_ALONE, *GRADIENTS, "grad_cam", "ablation_cam", "score_cam", "fullgrad"])
def test_every_kind_of_argument_reaches_the_model(method: str) -> None:
    net, arguments, images = Particular(), particular(), tiny_inputs(items=3)
    before = [tensor.clone() for tensor in arguments[4]]
    settings = quick(method) | ({"layer": "conv"} if method.endswith("cam") else {})
    answer = explain(net, (IDS, images), method, target=1, of=1, arguments=arguments, **settings)
    assert all(torch.equal(*pair) for pair in zip(before, arguments[4], strict=True))
    for item in range(3):
        one = OfOne(by_hand(net, arguments, IDS, item))
        one.add_module("conv", net.conv)
        expected = explain(one.eval(), images[item : item + 1], method, target=1, **settings)
        torch.testing.assert_close(answer.values[item : item + 1], expected.values, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(answer.score[item : item + 1], expected.score)


def test_arguments_are_named_or_follow_the_inputs() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = AveragingNet()

        def forward(self, x: Tensor, scale: float, power: int = 1) -> Tensor:
            return self.net(x).pow(power) * scale

    net, inputs = Scaled().eval(), tiny_inputs()
    once = explain(AveragingNet(), inputs, "gradient", target=1)
    for arguments in ([3.0], (3.0, 1), {"scale": 3.0}, {1: 3.0}, {1: 3.0, "power": 1}):
        values = explain(net, inputs, "gradient", target=1, arguments=arguments).values
        torch.testing.assert_close(values, 3 * once.values)


def test_inputs_have_names() -> None:
    net, image, row = ImageAndTable(), tiny_inputs(), table()
    expected = explain(net, (image, row), "gradient", target=1, of=1)
    for of in (0, "table"):
        found = explain(net, {"table": row, "image": image}, "gradient", target=1, of=of)
        assert found.of == "table"
        torch.testing.assert_close(found.values, expected.values, rtol=0, atol=0)


@pytest.mark.parametrize("items", [1, 2, 3])
def test_a_tensor_that_all_inputs_share_may_have_as_many_rows(items: int) -> None:
    """With two inputs, two rows of shifts for two channels look like one for each input."""

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = AveragingNet()

        def forward(self, x: Tensor, shifts: Tensor) -> Tensor:
            assert shifts.shape == (2, 1)
            return self.net(x + shifts[None, :, :, None])

    net, inputs = Shifted().eval(), tiny_inputs(items=items)
    shifts = torch.tensor([[0.5], [-1.0]], dtype=torch.float64)
    shifted = inputs + shifts[None, :, :, None]
    baseline = shifts[:, :, None]
    expected = explain(AveragingNet(), shifted, "occlusion", target=1, baseline=baseline, window=2).values
    found = explain(net, inputs, "occlusion", target=1, window=2, arguments=[shared(shifts)]).values
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("inputs", "settings", "kind", "message"),
    [
        (lambda: (tiny_inputs(), None), {}, TypeError, r"input 1 is a NoneType, .* goes to explain\(..., arguments="),
        (lambda: (tiny_inputs(), table()), {"of": 2}, LookupError, "there is no input 2 to explain; there are 0, 1"),
        (lambda: (tiny_inputs(), table()), {"of": -1}, LookupError, "there is no input -1"),
        (lambda: (tiny_inputs(), table()), {"of": (0, 0)}, ValueError, "names an input twice"),
        (lambda: (tiny_inputs(), table()), {"of": ()}, ValueError, "names no input"),
        (lambda: (tiny_inputs(), table()), {"of": True}, TypeError, "of=True is no input"),
        (lambda: (tiny_inputs(), IDS[:2]), {"of": "all"}, TypeError, "input 1 is torch.int64, whole numbers"),
        (lambda: (tiny_inputs(), table().float()), {"of": "all"}, TypeError, "torch.float32, the model torch.float64"),
        (lambda: (tiny_inputs(), table(3)), {}, ValueError, "they need one batch size"),
        (lambda: {"image": tiny_inputs()}, {"arguments": {"image": 3}}, ValueError, "'image' is both an input and"),
        (lambda: tiny_inputs(), {"arguments": {3: 1.0}}, ValueError, "argument 3 leaves places before it empty"),
        (lambda: {}, {}, ValueError, "there are no inputs"),
        (lambda: (IDS[:2], table()), {}, TypeError, "input 0 is torch.int64, .* such as of=1"),
        (lambda: tiny_inputs(), {"arguments": 3.0}, TypeError, "arguments is a float; give a mapping from names"),
        (lambda: tiny_inputs(), {"arguments": "mean"}, TypeError, "arguments is a str; give a mapping from names"),
        (lambda: tiny_inputs(), {"arguments": table()}, TypeError, "arguments is a Tensor; give a mapping from names"),
        (lambda: tiny_inputs(), {"arguments": {1.5: 3}}, TypeError, "arguments has the key 1.5; it is the name or"),
    ],
)
def test_what_makes_no_call_is_one_clear_line(
    inputs: Callable[[], Any], settings: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as told:
        explain(ImageAndTable(), inputs(), "gradient", target=0, **settings)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion"])
def test_an_argument_that_is_missing_is_named_with_the_way_out(method: str) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = AveragingNet()

        def forward(self, x: Tensor, scale: float, *, shift: float) -> Tensor:
            return self.net(x) * scale + shift

    told = r"Scaled.forward is missing a required argument: '{}'; give it by explain\(..., arguments=...\)"
    for arguments, name in (({}, "scale"), ({"shift": 1.0}, "scale"), ([2.0], "shift")):
        with pytest.raises(TypeError, match=told.format(name)):
            explain(Scaled().eval(), tiny_inputs(), method, target=1, arguments=arguments)


def test_of_is_the_setting_of_methods_too() -> None:
    net, image, row = ImageAndTable(), tiny_inputs(), table()
    by_name = explain(net, (image, row), "smoothgrad", target=1, of="input_x_gradient", samples=3).values
    method = cnnviz.attributions["smoothgrad"](of="input_x_gradient", samples=3)
    torch.testing.assert_close(by_name, explain(net, (image, row), method, target=1).values, rtol=0, atol=0)
    second = explain(net, (image, row), method, target=1, of=1).values
    assert second.shape == row.shape


# Which input is explained


@pytest.mark.parametrize("method", sorted(cnnviz.attributions))
def test_the_second_input_is_explained_as_a_first_one(method: str) -> None:
    class Turned(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.net(b) + a.mean((1, 2, 3))[:, None] * self.net(b).square()

    class Straight(Turned):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return super().forward(b, a)

    net = randomized(nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    first, second = tiny_inputs(seed=2), tiny_inputs(seed=3)
    layer = {"layer": "net.1"} if "layer" in cnnviz.attributions[method].settings else {}
    formula = cnnviz.attributions[method](**quick(method) | layer)
    try:
        expected = explain(Straight(net).eval(), (second, first), formula, target=1)
    except ValueError as error:  # cam needs another network
        with pytest.raises(ValueError, match=re.escape(str(error).replace("Straight", "Turned"))):
            explain(Turned(net).eval(), (first, second), formula, target=1, of=1)
        return
    found = explain(Turned(net).eval(), (first, second), formula, target=1, of=1)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.inputs, second, rtol=0, atol=0)
    assert found.of == 1


def test_metrics_ask_about_the_input_that_was_explained() -> None:
    net, arguments, images = Particular(), particular(), tiny_inputs(items=3)
    answer = explain(net, (IDS, images), "gradient", target=1, of=1, arguments=arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = evaluate(answer, "deletion", model=net, others=[IDS], arguments=arguments, scale="score")
        again = evaluate(answer, "max_sensitivity", model=net, others=[IDS], arguments=arguments)
    for item in range(3):
        one = OfOne(by_hand(net, arguments, IDS, item)).eval()
        alone = explain(one, images[item : item + 1], "gradient", target=1)
        torch.testing.assert_close(found[item : item + 1], evaluate(alone, "deletion", model=one, scale="score"))
        torch.testing.assert_close(again[item : item + 1], evaluate(alone, "max_sensitivity", model=one))
    with pytest.raises(ValueError, match="input 1 was explained; give those before and after it"):
        evaluate(answer, "deletion", model=net, arguments=arguments)


def test_metrics_take_named_inputs() -> None:
    net, image, row = ImageAndTable(), tiny_inputs(), table()
    answer = explain(net, {"table": row, "image": image}, "gradient", target=1, of="image")
    plain = explain(net, (image, row), "gradient", target=1)
    expected = evaluate(plain, "deletion", model=net, others=[row], scale="score")
    found = evaluate(answer, "deletion", model=net, others={"table": row}, scale="score")
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="the input 'image' was explained; give the others by name too"):
        evaluate(answer, "deletion", model=net, others=[row])
