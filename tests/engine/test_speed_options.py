"""What makes an answer come sooner changes nothing else: not the answer, not the model, not the caller's settings."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from quick import LEARNING, OF_ANY_NETWORK, quick
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import cnnviz
from cnnviz import Run, explain, gradient, prepare, rule
from cnnviz.__main__ import main
from cnnviz.engine import operation_observer as engine
from cnnviz.engine.model_facts import facts_of
from cnnviz.engine.speed import memory_format as layouts
from cnnviz.engine.speed.batch_norm import scaled
from cnnviz.engine.speed.compilation import compiled
from cnnviz.run.options import RunOptions


class Wide(nn.Module):
    """Pictures of 64 x 64 in, with batch norms, a skip connection and a ReLU6: large enough to be laid out anew."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(4)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.again = nn.BatchNorm2d(8)
        self.cap = nn.ReLU6(inplace=True)
        self.head = nn.Linear(8, 4)
        generator = torch.Generator().manual_seed(3)
        for name, values in self.state_dict().items():
            if values.is_floating_point():
                drawn = 0.4 * torch.randn(values.shape, generator=generator)
                values.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn)
        self.eval()

    def features(self, x: Tensor) -> Tensor:
        kept = self.pool(F.relu(self.norm(self.first(x))))
        return self.cap(self.again(self.second(kept)) + kept)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


def pictures(items: int = 2) -> Tensor:
    noise = torch.randn(items, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    smooth = F.interpolate(noise, (64, 64), mode="bilinear")
    # without it there would be flat places, where rounding decides for max-pooling
    return smooth + 0.05 * torch.randn(smooth.shape, generator=torch.Generator().manual_seed(2))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    before = torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled()
    yield
    assert (torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled()) == before
    assert not torch.is_autocast_enabled("cpu")


@pytest.fixture
def ordinary(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Asks in the ordinary order."""

    def ask(*args: Any, **kwargs: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(layouts, "SMALLEST", 10**9)
            return explain(*args, **kwargs)

    return ask


on_x86 = pytest.mark.skipif(
    layouts.preferred(Wide(), pictures()) is layouts.ORDINARY, reason="channels last is for oneDNN on x86"
)


def state(net: nn.Module) -> list[Any]:
    kept = [*net.parameters(), *net.buffers()]
    tensors = [(id(each), each._version, each.stride(), each.dtype, each.requires_grad, each.grad) for each in kept]
    return tensors + [(name, id(part), sorted(vars(part))) for name, part in net.named_modules()]


# Order in memory


@on_x86
@pytest.mark.parametrize("method", sorted(set(OF_ANY_NETWORK) - LEARNING - {"eigen_cam", "eigen_grad_cam"}))
def test_the_order_in_memory_changes_no_answer(method: str, ordinary: Any) -> None:
    net, inputs, settings = Wide(), pictures(), {"target": [1, 2], **quick(method)}
    before = state(net)
    expected = ordinary(net, inputs, method, **settings).values
    found = explain(net, inputs, method, **settings).values
    assert found.is_contiguous()
    assert layouts.ORDINARY not in facts_of(net)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-4 * float(expected.abs().max()))
    assert state(net) == before


@on_x86
def test_channels_last_is_what_convolutions_get() -> None:
    net, seen = Wide(), []
    net.second.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    explain(net, pictures(), "gradient", target=0)
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in seen)
    small = [pictures()[..., :32, :32], pictures().double()]
    assert layouts.preferred(net, small[0]) is layouts.preferred(net, small[1]) is layouts.ORDINARY


def test_many_weights_on_few_places_keep_the_ordinary_order() -> None:
    heavy = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 1200, 20), nn.Conv2d(1200, 4, 1)).eval()
    assert layouts.preferred(heavy, pictures(1)) is layouts.ORDINARY


class Viewing(Wide):
    """Can't be asked with channels last: ``view`` raises."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).view(len(x), -1).view(len(x), 8, -1).mean(2))


class Striding(Wide):
    """Would answer wrongly with channels last, without an error."""

    def forward(self, x: Tensor) -> Tensor:
        found = self.features(x)
        return self.head(found.as_strided((len(x), 8, 256), (8 * 256, 256, 1)).mean(2) + found[:, :, 0, 0])


class Boxed(Wide):
    """Gives its scores in something of its own."""

    def forward(self, x: Tensor) -> Any:  # type: ignore[override]
        return Box(self.head(self.features(x).mean((2, 3))))


class Asserting(Wide):
    """Raises something else than torch does."""

    def forward(self, x: Tensor) -> Tensor:
        found = self.features(x)
        assert found.is_contiguous()
        return self.head(found.mean((2, 3)))


class Reshaping(Wide):
    """Writes through what is a copy with channels last."""

    def forward(self, x: Tensor) -> Tensor:
        found = 1 * self.features(x)
        found.reshape(len(x), -1).mul_(torch.linspace(0, 2, found[0].numel()))
        return self.head(found.mean((2, 3)))


class Contiguous(Wide):
    """Adds what it wrote through ``contiguous()``."""

    def forward(self, x: Tensor) -> Tensor:
        found = self.features(x) - 1
        positive = F.relu(found.contiguous(), inplace=True)
        return self.head((found + positive).square().mean((2, 3)))


class Permuting(Wide):
    """Writes through what is a view with channels last, and a copy in the ordinary order."""

    def forward(self, x: Tensor) -> Tensor:
        found = 1 * self.features(x)
        last = torch.flatten(found.permute(0, 2, 3, 1), 1, 2)
        last[:, ::2] = 0
        return self.head((found.flatten(2).transpose(1, 2) * last).mean(1))


class Box:
    def __init__(self, logits: Tensor):
        self.logits = logits


@on_x86
@pytest.mark.parametrize("kind", [Viewing, Striding, Boxed, Asserting, Reshaping, Contiguous, Permuting])
@pytest.mark.parametrize("method", ["grad_cam", "gradient", "guided_backprop", "smoothgrad"])
def test_a_model_that_looks_at_memory_is_asked_as_ever(kind: type[Wide], method: str, ordinary: Any) -> None:
    net = kind()
    settings: dict[str, Any] = {"layer": "cap"} if method == "grad_cam" else quick(method)
    settings["target"] = (lambda out: out.logits[:, 1]) if kind is Boxed else 1
    expected = ordinary(net, pictures(), method, **settings).values
    assert torch.equal(explain(net, pictures(), method, **settings).values, expected)
    assert layouts.ORDINARY in facts_of(net)


torch.library.define("cnnviz_tests::first_plane", "(Tensor maps) -> Tensor")


@torch.library.impl("cnnviz_tests::first_plane", "CompositeImplicitAutograd")
def first_plane(maps: Tensor) -> Tensor:
    """The mean of each item's first H * W numbers in memory, (N, 1): of its first channel, where that is contiguous."""
    return maps.as_strided((len(maps), 1, maps[0, 0].numel()), (maps[0].numel(), 1, 1)).mean(2)


class FirstPlane(nn.Module):
    """A convolution that changes nothing, then an operator that takes contiguous memory for granted."""

    def __init__(self, operator: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 2, 1, bias=False)
        nn.init.dirac_(self.convolution.weight)
        self.operator = operator
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.operator(self.convolution(x))


OPERATORS = [torch.ops.cnnviz_tests.first_plane, torch.ops.cnnviz_tests.first_plane.default]


@pytest.mark.parametrize("operator", OPERATORS, ids=["packet", "overload"])
def test_operators_of_other_libraries_are_computed_in_the_ordinary_memory_format(
    operator: Callable[[Tensor], Tensor],
) -> None:
    inputs = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1).repeat(1, 1, 64, 64)
    answer = explain(FirstPlane(operator), inputs, "gradient", target=0)
    assert answer.score.item() == 1  # of the first channel; channels last, 1 and 3 take turns in memory: 2
    expected = torch.tensor([1 / 64**2, 0.0]).view(1, 2, 1, 1).expand_as(inputs)
    torch.testing.assert_close(answer.values, expected)


@on_x86
def test_a_rule_that_views_is_answered(ordinary: Any) -> None:
    viewing = rule(F.relu, name="viewing")(lambda call, grad: grad.view(len(grad), -1).view_as(grad) * 2)
    net = Wide()
    expected = ordinary(net, pictures(), gradient(rule=viewing), target=1).values
    torch.testing.assert_close(explain(net, pictures(), gradient(rule=viewing), target=1).values, expected)


@on_x86
def test_a_models_own_error_is_its_own() -> None:
    net = Wide()
    net.head.register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("my own")))
    with pytest.raises(RuntimeError, match="my own"):
        explain(net, pictures(), "gradient", target=1)
    assert layouts.ORDINARY not in facts_of(net)


# Batch norm


def normed(norm: Any) -> list[Tensor]:
    """What it makes of channels-last pictures, and their gradients."""
    inputs = pictures().contiguous(memory_format=torch.channels_last).requires_grad_()
    found = norm(inputs)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(4))
    return [found.detach(), torch.autograd.grad((found * weights).sum(), inputs)[0]]


@pytest.mark.parametrize("affine", [True, False])
def test_a_batch_norm_scaled_is_the_batch_norm(affine: bool) -> None:
    torch.manual_seed(0)
    mean, var = torch.randn(3), torch.rand(3) + 0.1
    weight, bias = (torch.randn(3, requires_grad=True), torch.randn(3)) if affine else (None, None)
    asked = (mean, var, weight, bias, False, 0.1, 1e-3)
    for found, expected in zip(
        normed(lambda x: scaled(x, *asked)), normed(lambda x: F.batch_norm(x, *asked)), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_batch_norms_of_other_kinds_are_left_alone() -> None:
    mean, var, weight, x = torch.zeros(3), torch.ones(3), torch.ones(3), pictures().requires_grad_()
    assert scaled(x, mean, var, weight, weight) is not None
    assert scaled(x.detach(), mean, var) is None  # there is no way back to make shorter
    assert scaled(x, mean, var, training=True) is None
    assert scaled(x, None, None, training=True) is None
    assert scaled(x, mean, var, x.mean((0, 2, 3)), None) is None  # computed from the input
    assert scaled(x.bfloat16(), mean, var) is None


@on_x86
def test_batch_norms_are_scaled_unless_a_rule_is_about_them(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[Tensor] = []
    monkeypatch.setattr(engine, "scaled", lambda x, *args, **kwargs: met.append(x) or scaled(x, *args, **kwargs))
    closed = rule(F.batch_norm, name="closed")(lambda call, grad: torch.zeros_like(grad))
    assert not bool(explain(Wide(), pictures(), gradient(rule=closed), target=1).values.any())
    explain(Wide().double(), pictures().double(), "gradient", target=1)
    explain(Wide(), pictures(), "fullgrad", target=1)
    assert not met
    explain(Wide(), pictures(), "gradient", target=1)
    assert len(met) == 2


# Precision


HALF = sorted(set(OF_ANY_NETWORK) - LEARNING - {"kernel_shap", "lime"})


@pytest.mark.parametrize("method", HALF)
def test_half_precision_is_answered_in_float32(method: str) -> None:
    net, inputs, settings = Wide(), pictures(), {"target": [1, 2], **quick(method)}
    if method == "occlusion":
        settings["window"] = 24  # what a small one takes away is lost in rounding
    before = state(net)
    expected = explain(net, inputs, method, **settings)
    found = explain(net, inputs, method, precision="bfloat16", **settings)
    assert found.values.dtype is found.score.dtype is torch.float32
    assert found.values.is_contiguous()
    cosine = torch.cosine_similarity(found.values.flatten(1), expected.values.flatten(1))
    assert cosine.min() > 0.9, cosine
    torch.testing.assert_close(found.score, expected.score, rtol=0.05, atol=0.05)
    assert state(net) == before


class Forks(nn.Module):
    """Looks at a value, so that each variant is a whole pass."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.inner(x)
        return scores if float(scores.detach().sum()) > -1e9 else scores * 2


@pytest.mark.parametrize("method", ["ablation_cam", "occlusion"])
@pytest.mark.parametrize("forks", [False, True])
def test_what_rounding_does_to_a_large_score_is_in_no_difference(method: str, forks: bool) -> None:
    net = Wide()
    with torch.no_grad():
        net.head.bias += 17.3
    asked, settings = Forks(net) if forks else net, {"layer": "inner.cap" if forks else "cap"}
    settings = settings if method == "ablation_cam" else {}
    expected = explain(asked, pictures(), method, target=1, **settings)
    found = explain(asked, pictures(), method, target=1, precision="bfloat16", **settings)
    cosine = torch.cosine_similarity(found.values.flatten(1), expected.values.flatten(1))
    assert cosine.min() > 0.999, cosine


def test_values_put_into_a_layer_are_those_that_were_given() -> None:
    net, inputs, target = Wide(), pictures(), torch.ones(2, dtype=torch.int64)

    def effects(run: Run) -> Tensor:
        maps = run.activation("first")

        def without_one(start: int, stop: int, item: int) -> Tensor:
            return torch.stack([maps[item].index_fill(0, torch.tensor(channel), 0.0) for channel in range(start, stop)])

        return run.scores_from("first", maps.shape[1], without_one) - run.score

    with torch.no_grad():
        changes = effects(Run(net, inputs, target, options=RunOptions(precision=torch.bfloat16)))
        expected = effects(Run(net, inputs, target))
    torch.testing.assert_close(changes, expected, rtol=1e-4, atol=1e-6)


def test_half_precision_is_computed_in_half() -> None:
    kinds = []
    net = Wide()
    explain(net, pictures(), "grad_cam", target=1, layer="cap")  # where the layer lies is found once, in float32
    net.second.register_forward_hook(lambda module, args, output: kinds.append(output.dtype))
    explain(net, pictures(), "grad_cam", target=1, layer="cap", precision="float16")
    explain(net, pictures(), "integrated_gradients", target=1, steps=3, precision="bfloat16")
    assert set(kinds) == {torch.float16, torch.bfloat16}
    assert torch.float32 not in kinds


class Conversions(TorchDispatchMode):
    """Counts how often one weight is converted to another precision."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight, self.times = weight, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.times += func is torch.ops.aten._to_copy.default and args[0] is self.weight
        return func(*args, **(kwargs or {}))


def test_weights_are_converted_once() -> None:
    net = Wide()
    with Conversions(net.first.weight) as counted:
        explain(net, pictures(), "smoothgrad", samples=9, precision="bfloat16", target=1)
    assert counted.times == 1


def test_converted_weights_are_forgotten() -> None:
    net, inputs = Wide(), pictures()
    with torch.autocast("cpu", torch.bfloat16):  # which keeps what is converted until it ends
        explain(net, inputs, "grad_cam", precision="bfloat16", target=1)
        with torch.no_grad():
            net.head.weight.zero_()  # from now on the scores are the bias
        scores = net(inputs)
    assert torch.equal(scores, net.head.bias.bfloat16().expand(2, 4))


@pytest.mark.parametrize(
    ("settings", "inputs", "message"),
    [
        ({"precision": "half"}, pictures(), "there is no precision 'half'; there are float32, tf32, bfloat16, float16"),
        ({"precision": "bfloat16"}, pictures().double(), "for models and inputs in float32, and here is float64"),
        ({"fold": True}, torch.zeros(1, 3, 12, 10), "Sequential has no batch norm that alone reads a convolution"),
        ({"compile": "nvfuser"}, pictures(), "torch.compile has no backend 'nvfuser'; there are .*inductor"),
    ],
)
def test_what_is_not_there_is_said(settings: dict[str, Any], inputs: Tensor, message: str) -> None:
    net = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
        if "fold" in settings
        else Wide()
    )
    net = net.to(inputs.dtype)
    with pytest.raises((ValueError, LookupError), match=message):
        explain(net, inputs, "gradient", target=1, **settings)


# Batch norms folded


@pytest.mark.parametrize("method", sorted(set(OF_ANY_NETWORK) - LEARNING - {"fullgrad"}))
def test_folded_batch_norms_change_no_answer(method: str) -> None:
    net, inputs, settings = Wide().double(), pictures().double(), {"target": [1, 2], **quick(method)}
    before = state(net)
    expected = explain(net, inputs, method, **settings)
    found = explain(net, inputs, method, fold=True, **settings)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-5, atol=1e-5 * float(expected.values.abs().max()))
    assert found.recipe == expected.recipe
    assert state(net) == before


def test_folded_batch_norms_are_gone() -> None:
    net = Wide()
    calls: list[nn.Module] = []
    normed = nn.BatchNorm2d.forward

    def counting(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
        calls.append(norm)
        return normed(norm, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.BatchNorm2d, "forward", counting)
        explain(net, pictures(), "integrated_gradients", target=1, steps=5, fold=True)
    assert calls == [net.norm, net.again], "those of the pass in which they are found"


def test_a_layer_that_folds_away_is_refused_and_its_norm_is_not() -> None:
    net = Wide()
    with pytest.raises(LookupError, match="layer 'second' now does 'again' too; name that one, or leave fold out"):
        explain(net, pictures(), "grad_cam", target=1, layer="second", fold=True)
    with pytest.raises(LookupError, match="layer 'second' now does 'again' too"):
        explain(net, pictures(), "grad_cam", target=1, layer=net.second, fold=True)
    for layer in ("again", net.again, net.cap, None):
        found = explain(net, pictures(), "grad_cam", target=1, layer=layer, fold=True).values
        torch.testing.assert_close(found, explain(net, pictures(), "grad_cam", target=1, layer=layer).values)


def test_what_looks_at_batch_norms_is_refused() -> None:
    with pytest.raises(ValueError, match="the biases of batch norms are asked for, which fold puts elsewhere"):
        explain(Wide(), pictures(), "fullgrad", target=1, fold=True)
    looking = rule(F.batch_norm, name="looking")(lambda call, grad: grad)
    with pytest.raises(ValueError, match="rule 'looking' acts on convolutions and batch norms as they are"):
        explain(Wide(), pictures(), gradient(rule=looking), target=1, fold=True)


class Peeking(Wide):
    """Reads a convolution beside its batch norm, uses another twice, and a norm by hand."""

    def features(self, x: Tensor) -> Tensor:
        first = self.first(x)
        kept = self.pool(F.relu(self.norm(first)) + first)
        return self.cap(self.again(self.second(self.again(self.second(kept)))))


def test_only_what_nobody_else_reads_is_folded() -> None:
    with pytest.raises(ValueError, match="Peeking has no batch norm that alone reads a convolution"):
        explain(Peeking(), pictures(), "gradient", target=1, fold=True)


class Recycling(nn.Module):
    """Norms what nobody holds; now and then its convolution's output gets that tensor's place in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 5, 3)
        self.recycled = False
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        moved = x + 1
        place = id(moved)
        normed = self.norm(moved)
        del moved
        out = self.conv(normed)
        self.recycled |= id(out) == place
        return out.mean((2, 3))


def test_a_norm_is_paired_with_what_it_read_and_not_with_what_took_its_place() -> None:
    net, kept = Recycling(), []
    for _ in range(500):
        with pytest.raises(ValueError, match=r"^Recycling has no batch norm that alone reads a convolution"):
            explain(net, pictures(1)[..., :8, :8], "gradient", target=1, fold=True)
        kept.append(object())  # so that places in memory are taken otherwise
        if net.recycled:
            return
    pytest.skip("no tensor took another's place in memory")


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "occlusion"])
def test_batch_norms_fold_in_inference_mode(method: str) -> None:
    net, settings = Wide(), {"target": 1, **quick(method)}
    expected = explain(net, pictures(), method, fold=True, **settings).values
    with torch.inference_mode():
        found = explain(net, pictures(), method, fold=True, **settings).values
    torch.testing.assert_close(found, expected)


class ByHand(Wide):
    def features(self, x: Tensor) -> Tensor:
        norm, first = self.norm, self.first(x)
        return self.cap(self.pool(F.batch_norm(first, norm.running_mean, norm.running_var, norm.weight, norm.bias)))


def test_a_copy_that_answers_differently_is_refused() -> None:
    with pytest.raises((ValueError, AttributeError), match=r"answers differently|attribute 'running_mean'"):
        explain(ByHand(), pictures(), "gradient", target=1, fold=True)


# Compiled


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("method", ["occlusion", "rise", "feature_ablation", "gradient"])
def test_compiled_passes_give_the_same_answers(method: str, backend: str) -> None:
    net, inputs, settings = Wide(), pictures(), {"target": [1, 2], **quick(method)}
    if method == "occlusion":
        settings["window"] = 24
    before = state(net)
    expected = explain(net, inputs, method, **settings).values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = explain(net, inputs, method, compile=backend, **settings).values
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert state(net) == before


def test_compiled_passes_are_compiled_once() -> None:
    graphs: list[Any] = []

    def counting(graph: Any, examples: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.register_backend(counting, name="counting_backend")
    net = Wide()
    for _ in range(2):
        explain(net, pictures(), "rise", masks=8, cells=2, target=1, compile="counting_backend")
        first = len(graphs)
    assert 1 <= first == len(graphs) <= 4


def test_a_compiled_model_that_answers_differently_is_refused() -> None:
    def wrong(graph: Any, examples: Any) -> Any:
        return lambda *args: tuple(output * 1.01 for output in graph(*args))

    torch._dynamo.register_backend(wrong, name="wrong_backend")
    with pytest.raises(ValueError, match="Wide answers differently when compiled by wrong_backend; leave compile out"):
        explain(Wide(), pictures(), "occlusion", target=1, compile="wrong_backend")


@pytest.mark.parametrize("settings", [{"compile": "eager"}, {"fold": True}])
def test_masked_scores_and_numbers_of_classes_are_no_reason_to_refuse(settings: dict[str, Any]) -> None:
    class Masked(Wide):
        def forward(self, x: Tensor) -> Any:
            scores = super().forward(x)
            classes = torch.arange(scores.shape[1])
            return scores.masked_fill(classes == 0, -torch.inf), scores.argmax(1), classes > 0

    net, inputs = Masked(), pictures()

    def second(output: Any) -> Tensor:
        scores: Tensor = output[0][:, 1]
        return scores

    expected = explain(net, inputs, "occlusion", target=second).values
    torch.testing.assert_close(
        explain(net, inputs, "occlusion", target=second, **settings).values, expected, rtol=1e-3, atol=1e-5
    )


def test_a_changed_copy_is_asked_itself_and_not_the_compiled_model() -> None:
    net, inputs, target = Wide(), pictures(), torch.ones(len(pictures()), dtype=torch.int64)
    changed = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter *= 1.5
        run = Run(net, inputs, target, options=RunOptions(compiled=compiled(net, [inputs], "eager")))
        torch.testing.assert_close(run.of(changed).score, changed(inputs)[:, 1])


class Opaque:
    def __init__(self, scores: Tensor) -> None:
        self.scores = scores


def test_an_output_that_cannot_be_compared_is_not_compiled() -> None:
    class Wraps(Wide):
        def forward(self, x: Tensor) -> Any:
            return Opaque(super().forward(x))

    with pytest.raises(
        ValueError, match="Wraps gives a Opaque without tensors that can be compared; leave compile out"
    ):
        explain(Wraps(), pictures(), "occlusion", target=lambda output: output.scores[:, 1], compile="eager")


def test_settings_that_hasten_go_together() -> None:
    net, inputs = Wide(), pictures()
    expected = explain(net, inputs, "rise", masks=8, cells=2, target=1).values
    found = explain(net, inputs, "rise", masks=8, cells=2, target=1, compile="eager", fold=True, precision="bfloat16")
    assert torch.cosine_similarity(found.values.flatten(1), expected.flatten(1)).min() > 0.99
    assert cnnviz.explain(net, inputs, "grad_cam", target=1, precision="float32").values.dtype is torch.float32


def test_the_command_line_hands_them_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}

    def preparing(*args: Any, **kwargs: Any) -> Any:
        told.update({name: kwargs[name] for name in ("precision", "fold", "compile")})
        return prepare(*args, **(kwargs | {"compile": False}))

    monkeypatch.setattr("cnnviz.cli.batch_explain.prepare", preparing)
    picture = tmp_path / "gray.png"
    Image.new("RGB", (96, 96), "gray").save(picture)
    asked = ["explain", str(picture), "-o", str(tmp_path / "map.png"), "--quiet", "--overwrite"]
    assert main([*asked, "--precision", "bfloat16", "--fold", "--compile"]) == 0
    assert told == {"precision": "bfloat16", "fold": True, "compile": True}
    assert main(asked) == 0
    assert told == {"precision": None, "fold": False, "compile": False}


def test_the_command_line_refuses_another_precision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (96, 96), "gray").save(tmp_path / "gray.png")
    assert main(["explain", str(tmp_path / "gray.png"), "-o", str(tmp_path / "map.png"), "--precision", "int8"]) != 0
    assert "there is no precision 'int8'; there are float32, tf32, bfloat16, float16" in capsys.readouterr().err
