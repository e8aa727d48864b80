"""What goes wrong in other people's hands: every fault, for every attribution, ends in a right map or a clear error."""

from __future__ import annotations

import copy
import gc
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from quick import LEARNING, OF_ANY_NETWORK, PERTURBING, quick
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cnnviz import attributions, explain
from cnnviz.testing.faults import FailingLayer, SimulatedError
from cnnviz.testing.state_snapshot import state, unchanged

NAMES = OF_ANY_NETWORK
LAYERED = [name for name in NAMES if "layer" in attributions[name].settings]
RULED = {"guided_backprop", "deconvnet", "guided_grad_cam"}
BLIND = {"activation", "eigen_cam", "projections"}  # to the score
FORWARD = PERTURBING | {"activation", "eigen_cam"}
MAPS = {*LAYERED, "saliency_confusion"} - {"conditional_relevance", "guided_grad_cam", "lrp", "projections"}
"""Nothing before the layer is asked for."""
every = pytest.mark.parametrize("name", NAMES)
TARGET = [0, 1, 2]


class Net(nn.Module):
    """Two convolutions, averaged and classified: every attribution has an answer to it."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
            self.bn = nn.BatchNorm2d(6)
            self.relu1 = nn.ReLU(inplace)
            self.pool = nn.MaxPool2d(2)
            self.conv2 = nn.Conv2d(6, 8, 3, padding=1)
            self.relu2 = nn.ReLU(inplace)
            self.drop = nn.Dropout()
            self.fc = nn.Linear(8, 5)
            self.unused = nn.Conv2d(8, 8, 1)
            nn.init.uniform_(self.bn.running_mean, -0.2, 0.2)
            nn.init.uniform_(self.bn.running_var, 0.5, 1.5)
        self.eval()

    def first(self, x: Tensor) -> Tensor:
        return self.pool(self.relu1(self.bn(self.conv1(x))))

    def second(self, x: Tensor) -> Tensor:
        return self.relu2(self.conv2(x))

    def head(self, x: Tensor) -> Any:
        return self.fc(self.drop(x.mean((-2, -1))))

    def forward(self, x: Tensor) -> Any:
        return self.head(self.second(self.first(x)))


def variant(**parts: Callable[..., Any]) -> Net:
    """A Net with methods of its own; the weights are the same."""
    return type("Variant", (Net,), parts)()


def batch(items: int = 3, size: tuple[int, ...] = (10, 8)) -> Tensor:
    return torch.randn(items, 3, *size, generator=torch.Generator().manual_seed(1))


def ask(name: str, model: Any, inputs: Any, target: Any = TARGET, **how: Any) -> Tensor:
    return explain(model, inputs, name, target=target, **(quick(name) | how)).values


def ask_conv2(name: str, model: Any, inputs: Any, target: Any = TARGET) -> Tensor:
    """Class activation maps of a layer before the ReLU, however that is written."""
    if name == "saliency_confusion":
        return ask(name, model, inputs, target, of=attributions["grad_cam"](layer="conv2"))
    return ask(name, model, inputs, target, **({"layer": "conv2"} if name in LAYERED else {}))


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    expected = expected.detach()
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()) + 1e-12)


def put(inputs: Tensor, value: float) -> Tensor:
    inputs[1, 2, 3, 4] = value
    return inputs


@contextmanager
def untouched(model: nn.Module, inputs: Tensor | None = None) -> Iterator[None]:
    watched = torch.zeros(0) if inputs is None else inputs
    with unchanged("the call", lambda: state(model, watched)):
        yield


# Refused, in words that say what to do

Asked = tuple[nn.Module, Any, Any]


def training(part: str) -> Net:
    model = Net()
    model.get_submodule(part).train()
    return model


def with_nan_weight() -> Net:
    model = Net()
    with torch.no_grad():
        model.conv2.weight[0, 0, 0, 0] = torch.nan
    return model


def scripted(make: Callable[[nn.Module], nn.Module]) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and in use
        return make(Net())


def part_scripted() -> Net:
    model = Net()
    model.relu2 = scripted(lambda _: torch.jit.script(nn.ReLU()))
    return model


def born_in_inference_mode() -> Net:
    with torch.inference_mode():
        return Net()


def as_dict(self: Net, x: Tensor) -> Any:
    return {"out": self.fc(x.mean((-2, -1))), "aux": x}


def as_tuple(self: Net, x: Tensor) -> Any:
    return self.fc(x.mean((-2, -1))), x


REFUSED: dict[str, tuple[Callable[[], Asked], type[Exception], str]] = {
    "NaN in the input": (
        lambda: (Net(), put(batch(), torch.nan), TARGET),
        ValueError,
        r"the input has 1 values that are not finite, the first \(NaN\) at \[1, 2, 3, 4\]",
    ),
    "infinity in the input": (
        lambda: (Net(), put(batch(), torch.inf), TARGET),
        ValueError,
        r"the input has 1 values that are not finite, the first \(infinite\) at \[1, 2, 3, 4\]",
    ),
    "NaN in a weight": (lambda: (with_nan_weight(), batch(), TARGET), ValueError, "NaN or infinite"),
    "NaN in a weight, no target": (lambda: (with_nan_weight(), batch(), None), ValueError, "NaN or infinite"),
    "class too high": (
        lambda: (Net(), batch(), 9999),
        ValueError,
        "there is no class 9999; the model has 5, numbered 0 to 4",
    ),
    "class negative": (lambda: (Net(), batch(), -1), ValueError, "there is no class -1"),
    "one class of many too high": (lambda: (Net(), batch(), [0, 5, 1]), ValueError, "there is no class 5"),
    "too few classes": (lambda: (Net(), batch(), [0, 1]), ValueError, "there are 2 targets for 3 inputs"),
    "bytes": (
        lambda: (Net(), torch.randint(0, 256, (3, 3, 10, 8), dtype=torch.uint8), TARGET),
        TypeError,
        "the input is torch.uint8; models take normalized floating point",
    ),
    "float64 for a float32 model": (
        lambda: (Net(), batch().double(), TARGET),
        TypeError,
        "the input is torch.float64, the model torch.float32",
    ),
    "no batch dimension": (lambda: (Net(), batch()[0], 1), ValueError, "without a batch dimension.*inputs.None"),
    "no batch dimension, and the model takes it": (
        lambda: (variant(first=lambda self, x: self.pool(self.relu1(self.conv1(x)))), batch()[0], 1),
        ValueError,
        "batch dimension",
    ),
    "no batch dimension, as many classes as channels": (
        lambda: (
            variant(
                first=lambda self, x: self.pool(self.relu1(self.conv1(x))),
                head=lambda self, x: self.fc(x.mean((-2, -1)))[..., :3],
            ),
            batch()[0],
            None,
        ),
        ValueError,
        "batch dimension",
    ),
    "channels last": (
        lambda: (Net(), batch().movedim(1, -1), TARGET),
        ValueError,
        r"channels last: pass inputs.movedim\(-1, 1\)",
    ),
    "too many channels": (lambda: (Net(), torch.randn(3, 4, 10, 8), TARGET), ValueError, r"takes \(N, 3, H, W\)"),
    "a volume": (lambda: (Net(), batch(size=(4, 10, 8)), TARGET), ValueError, r"wrong rank; Net takes \(N, 3, H, W\)"),
    "empty batch": (lambda: (Net(), batch()[:0], []), ValueError, "nothing in it to explain"),
    "no width": (lambda: (Net(), batch()[..., :0], TARGET), ValueError, "nothing in it to explain"),
    "output a dict": (
        lambda: (variant(head=as_dict), batch(), TARGET),
        TypeError,
        r"gives a dict with 'out', 'aux'.*target=lambda output: output\['out'\]",
    ),
    "output a tuple": (lambda: (variant(head=as_tuple), batch(), TARGET), TypeError, "gives a tuple.*lambda output"),
    "output a map": (
        lambda: (variant(head=lambda self, x: x), batch(), TARGET),
        ValueError,
        r"gives \(., 8, 5, 4\), not scores \(N, K\); give a function",
    ),
    "in training": (lambda: (Net().train(), batch(), TARGET), ValueError, r"call model.eval\(\) first"),
    "batch norm in training": (lambda: (training("bn"), batch(), TARGET), ValueError, r"'bn' is in training mode"),
    "made in inference mode": (
        lambda: (born_in_inference_mode(), batch(), TARGET),
        ValueError,
        r"conv1.weight' was made inside torch.inference_mode",
    ),
}


@every
@pytest.mark.parametrize("fault", REFUSED)
def test_it_is_refused_with_the_reason(name: str, fault: str) -> None:
    make, error, message = REFUSED[fault]
    model, inputs, target = make()
    with untouched(model, inputs), pytest.raises(error, match=message) as caught:
        ask(name, model, inputs, target)
    assert "\n" not in str(caught.value)


# Operations inside of TorchScript can't be seen: what needs only scores is right, the rest is refused

HIDDEN: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "scripted": (lambda: scripted(torch.jit.script), "before torch.jit"),
    "traced": (lambda: scripted(lambda net: torch.jit.trace(net, batch())), "before torch.jit"),
    "a part scripted": (part_scripted, "relu2.*before torch.jit"),
}


@every
@pytest.mark.parametrize("fault", HIDDEN)
def test_hidden_operations_are_explained_right_or_refused(name: str, fault: str) -> None:
    make, message = HIDDEN[fault]
    model, inputs = make(), batch()
    if attributions[name]().scores_only():
        with untouched(model, inputs):
            close(ask(name, model, inputs), ask(name, Net(), inputs))
        return
    with untouched(model, inputs), pytest.raises(TypeError, match=message) as caught:
        ask(name, model, inputs)
    assert "\n" not in str(caught.value)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(TypeError, match=r"the model is a dict; cnnviz explains a torch\.nn\.Module, or any callable"):
        explain({}, batch())


@pytest.mark.parametrize("name", LAYERED)
def test_a_layer_that_never_runs_is_refused(name: str) -> None:
    with untouched(model := Net()), pytest.raises(LookupError, match="layer 'unused' did not run for this input"):
        ask(name, model, batch(), layer="unused")


RELEVANCE = ("lrp", "layer_relevance")  # divided among features too


@pytest.mark.parametrize("name", RELEVANCE)
def test_a_layer_of_features_has_relevance(name: str) -> None:
    model, inputs = Net(), batch()
    found = explain(model, inputs, name, layer="fc", target=2)
    expected = torch.zeros_like(found.values)
    expected[:, 2, 0, 0] = found.score
    torch.testing.assert_close(found.values, expected)


# of features a unit is projected, or the relevance is divided
OF_FEATURES = ("projections", "conditional_relevance", *RELEVANCE)


@pytest.mark.parametrize("name", [name for name in LAYERED if name not in OF_FEATURES])
def test_a_layer_without_spatial_extent_is_refused(name: str) -> None:
    with (
        untouched(model := Net()),
        pytest.raises(ValueError, match=r"layer 'fc' gives \(., 5\).* no spatial extent"),
    ):
        ask(name, model, batch(), layer="fc")


CUT: dict[str, dict[str, Callable[..., Any]]] = {
    "detach before the classifier": {"head": lambda self, x: self.fc(x.detach().mean((-2, -1)))},
    "no_grad at the classifier": {"head": torch.no_grad()(Net.head)},
    "argmax, one-hot": {"head": lambda self, x: F.one_hot(x.mean((-2, -1)).argmax(1) % 5, 5).float()},
}


@every
@pytest.mark.parametrize("cut", CUT)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_cut_graph_is_refused(name: str, cut: str, frozen: bool) -> None:
    model = variant(**CUT[cut]).requires_grad_(not frozen)
    if name in BLIND | PERTURBING:  # which need no gradient of the score
        if name in BLIND or cut != "argmax, one-hot":
            close(ask(name, model, batch()), ask(name, Net(), batch()))
        return
    with untouched(model), pytest.raises(ValueError, match=r"a detach\(\),? (or )?no_grad\(\)"):
        ask(name, model, batch())


@every
def test_a_graph_cut_before_the_layer_is_no_matter_behind_it(name: str) -> None:
    model = variant(first=torch.no_grad()(Net.first))
    if name in MAPS | PERTURBING:
        close(ask(name, model, batch()), ask(name, Net(), batch()))
    else:
        with pytest.raises(ValueError, match=r"does not depend on the input.*no_grad\(\)"):
            ask(name, model, batch())


# Failures of the model: they come through as they are, and leave nothing behind


ERRORS = [
    SimulatedError("oh"),
    IndexError("oh"),
    RuntimeError("oh"),
    KeyboardInterrupt("oh"),
    torch.OutOfMemoryError("oh"),
]


@every
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["first pass", "last pass", "way back"])
def test_an_exception_passes_and_leaves_nothing(name: str, error: BaseException, place: str) -> None:
    armed, passes = [False], [0]

    def head(self: Net, x: Tensor) -> Tensor:
        passes[0] += 1
        if armed[0] and place == "way back":
            x = FailingLayer(error, backward=1)(x)
        elif armed[0] and passes[0] == (1 if place == "first pass" else expected):
            raise error
        return Net.head(self, x)

    model, inputs = variant(head=head), batch()
    first = ask(name, model, inputs)
    passes[0], expected = 0, 0
    ask(name, model, inputs)
    expected, passes[0], armed[0] = passes[0], 0, True
    if place == "way back" and name in FORWARD | BLIND:
        return  # it takes no gradient of the score
    many = name in {"smoothgrad", "smoothgrad_squared", "vargrad", "integrated_gradients"} | PERTURBING
    if isinstance(error, torch.OutOfMemoryError) and many and place == "last pass":
        return  # the chunk is halved and taken again, see test_memory
    with untouched(model, inputs), pytest.raises(type(error)) as caught:
        ask(name, model, inputs)
    assert caught.value is error
    armed[0] = False
    close(ask(name, model, inputs), first, 0)


@pytest.mark.parametrize("name", ["gradient", "grad_cam", "smoothgrad"])
@pytest.mark.parametrize("error", [StopIteration("oh"), ValueError("oh"), KeyError("oh"), SystemExit("oh")], ids=repr)
def test_the_same_exception_comes_out(name: str, error: BaseException) -> None:
    def head(self: Net, x: Tensor) -> Tensor:
        raise error

    with pytest.raises(type(error)) as caught:
        ask(name, variant(head=head), batch())
    assert caught.value is error


# Unusual, and right

Right = tuple[Callable[[], Any], Callable[[], Tensor], Callable[[], AbstractContextManager[Any]]]


def reused(self: Net, x: Tensor) -> Tensor:
    return self.relu1(self.conv2(x))


def overwrites(self: Net, x: Tensor) -> Any:
    return Net.forward(self, -x.neg_())


def normed(model: Net) -> Net:
    with torch.random.fork_rng(devices=[]):
        for part in (model.conv1, model.conv2, model.fc):
            nn.utils.parametrizations.weight_norm(part)
    return model


def in_place_methods(self: Net, x: Tensor) -> Tensor:
    return self.conv2(x).mul_(2).div_(2).relu_()


def in_eager_blocks(self: Net, x: Tensor) -> Tensor:
    with torch.enable_grad():
        return Net.second(self, x)


def quiet_block(self: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        x.amax()
    return Net.second(self, x)


def rng_inside(self: Net, x: Tensor) -> Any:
    return Net.head(self, x) + 0 * torch.zeros(1)


def checkpointed(reentrant: bool) -> Callable[[Net, Tensor], Tensor]:
    return lambda self, x: checkpoint(lambda y: Net.second(self, y), x, use_reentrant=reentrant)


def mapped(self: Net, x: Tensor) -> Tensor:
    return torch.vmap(lambda each: Net.second(self, each[None])[0])(x)


def with_jacobian(self: Net, x: Tensor) -> Any:
    slope = torch.func.grad(lambda v: (v**2).sum())(torch.ones(1))
    return Net.head(self, x) + 0 * slope


def whole_inputs() -> Tensor:
    return batch()


SAME: dict[str, Right] = {
    "in-place ReLU modules": (lambda: Net(inplace=True), batch, nullcontext),
    "functional ReLU": (lambda: variant(second=lambda self, x: F.relu(self.conv2(x))), batch, nullcontext),
    "functional in-place ReLU": (
        lambda: variant(second=lambda self, x: F.relu(self.conv2(x), inplace=True)),
        batch,
        nullcontext,
    ),
    "torch.relu_": (lambda: variant(second=lambda self, x: torch.relu_(self.conv2(x))), batch, nullcontext),
    "clamp at zero": (lambda: variant(second=lambda self, x: self.conv2(x).clamp(min=0)), batch, nullcontext),
    "one ReLU used twice": (lambda: variant(second=reused), batch, nullcontext),
    "writes in place behind the layer": (lambda: variant(second=in_place_methods), batch, nullcontext),
    "dropout in training": (lambda: no_dropout(training("drop")), batch, nullcontext),
    "frozen weights": (lambda: Net().requires_grad_(False), batch, nullcontext),
    "channels_last": (
        lambda: Net().to(memory_format=torch.channels_last),
        lambda: batch().contiguous(memory_format=torch.channels_last),
        nullcontext,
    ),
    "strided view": (Net, lambda: batch(3, (8, 10)).transpose(2, 3).contiguous().transpose(2, 3), nullcontext),
    "flipped and sliced": (Net, lambda: batch(6, (20, 16))[::2, :, ::2, 1::2].flip(3), nullcontext),
    "expanded grey": (Net, lambda: batch()[:, :1].expand(-1, 3, -1, -1), nullcontext),
    "expanded batch": (Net, lambda: batch(1).expand(3, -1, -1, -1), nullcontext),
    "input with a graph": (Net, lambda: batch().requires_grad_() * 2, nullcontext),
    "input that asks for gradients": (Net, lambda: batch().requires_grad_(), nullcontext),
    "a Parameter as input": (Net, lambda: nn.Parameter(batch()), nullcontext),
    "writes into its input": (lambda: variant(forward=overwrites), batch, nullcontext),
    "weight_norm": (lambda: normed(Net()), batch, nullcontext),
    "DataParallel": (lambda: nn.DataParallel(Net()), batch, nullcontext),
    "inside no_grad": (Net, batch, torch.no_grad),
    "inside inference_mode": (Net, batch, torch.inference_mode),
    "input from inference_mode": (Net, lambda: torch.inference_mode()(whole_inputs)() + 0, nullcontext),
    "input of inference_mode": (Net, torch.inference_mode()(whole_inputs), nullcontext),
    "all in inference_mode": (Net, torch.inference_mode()(whole_inputs), torch.inference_mode),
    "enable_grad inside": (lambda: variant(second=in_eager_blocks), batch, nullcontext),
    "no_grad beside": (lambda: variant(second=quiet_block), batch, nullcontext),
    "checkpoint": (lambda: variant(second=checkpointed(False)), batch, nullcontext),
    "torch.func inside": (lambda: variant(head=with_jacobian), batch, nullcontext),
    "fx": (lambda: torch.fx.symbolic_trace(Net()).eval(), batch, nullcontext),
}


def no_dropout(model: Net) -> Net:
    model.drop.p = 0.0
    return model


@every
@pytest.mark.parametrize("case", SAME)
def test_unusual_models_and_inputs_are_explained_right(name: str, case: str) -> None:
    make, inputs, entered = SAME[case]
    model, x = make(), inputs()
    expected = ask_conv2(name, Net(), torch.tensor(x.detach().tolist()))
    with untouched(model, x), entered():
        found = ask_conv2(name, model, x)
    close(found, expected)
    assert not found.requires_grad


@every
def test_the_prediction_is_explained_in_inference_mode(name: str) -> None:
    model = Net()
    with torch.inference_mode():
        found = ask(name, model, batch(), None)
    close(found, ask(name, Net(), batch(), None))


@every
def test_a_reentrant_checkpoint_works_or_says_why(name: str) -> None:
    model = variant(second=checkpointed(True))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks to be used otherwise
            found = ask(name, model, batch())
    except (RuntimeError, ValueError, LookupError) as error:
        assert any(word in str(error) for word in ("checkpoint", "use_reentrant", "no_grad", "spatial extent"))  # noqa: PT017
    else:
        close(found, ask(name, Net(), batch()))


@every
def test_vmap_in_the_model_works_or_says_why(name: str) -> None:
    model = variant(second=mapped)
    try:
        found = ask(name, model, batch())
    except (RuntimeError, ValueError, LookupError) as error:
        assert any(word in str(error) for word in ("vmap", "functorch", "spatial extent", "averages this layer"))  # noqa: PT017
    else:
        expected = ask(name, Net(), batch())
        if found.shape != expected.shape:  # a layer inside of vmap can't be followed: the one before it is chosen
            at = {"of": attributions["grad_cam"](layer="relu1")} if name == "saliency_confusion" else {"layer": "relu1"}
            expected = ask(name, Net(), batch(), **at)
        close(found, expected)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_nearly_the_same(name: str, dtype: torch.dtype) -> None:
    found = ask(name, Net().to(dtype), batch().to(dtype))
    expected = ask(name, Net(), batch())
    drawn = {"smoothgrad", "smoothgrad_squared", "vargrad"}  # other draws in half precision
    if name not in drawn | LEARNING:  # and small differences send what learns another way
        likeness = torch.corrcoef(torch.stack([found.flatten().float(), expected.flatten()]))[0, 1]
        assert likeness > 0.98
    assert found.isfinite().all()


@every
def test_autocast_around_the_call(name: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        found = ask(name, model := Net(), batch())
        assert model(batch()).dtype == torch.bfloat16
    expected = ask(name, Net(), batch())
    likeness = torch.corrcoef(torch.stack([found.flatten().float(), expected.flatten()]))[0, 1]
    assert likeness > (0.7 if name in LEARNING else 0.98)  # small differences send what learns another way


@every
def test_autocast_in_the_model(name: str) -> None:
    model = variant(forward=torch.autocast("cpu", torch.bfloat16)(Net.forward))
    found, expected = ask(name, model, batch()), ask(name, Net(), batch())
    likeness = torch.corrcoef(torch.stack([found.flatten().float(), expected.flatten()]))[0, 1]
    assert likeness > (0.7 if name in LEARNING else 0.98)


# Compiled, traced and exported

COMPILED: dict[str, Callable[[], nn.Module]] = {
    "eager": lambda: torch.compile(Net(), backend="eager"),
    "aot_eager": lambda: torch.compile(Net(), backend="aot_eager"),
    "in place": lambda: compiled_in_place(Net()),
    "a part": lambda: part_compiled(),
    "a function": lambda: function_compiled(),
    "a method": lambda: method_compiled(),
}


def compiled_in_place(model: Net) -> Net:
    model.compile(backend="eager")
    return model


def part_compiled() -> Net:
    model = variant(second=lambda self, x: self.relu2(self.conv2(x)))
    model.relu2 = torch.compile(nn.ReLU(), backend="aot_eager")
    return model


def function_compiled() -> Net:
    rectified = torch.compile(lambda x: F.relu(x), backend="aot_eager")
    return variant(second=lambda self, x: rectified(self.conv2(x)))


def method_compiled() -> Net:
    return variant(second=torch.compile(Net.second, backend="aot_eager"))


@pytest.fixture(scope="module")
def compiled() -> dict[str, nn.Module]:
    """Warm, so that compiled code is there to be run."""
    models = {name: make() for name, make in COMPILED.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler looks at everything
        for model in models.values():
            with torch.no_grad():
                model(batch())
            model(batch()).sum().backward()
            model.zero_grad()
    return models


@every
@pytest.mark.parametrize("how", COMPILED)
def test_compiled_models_are_explained_right(name: str, how: str, compiled: dict[str, nn.Module]) -> None:
    model = compiled[how]
    with untouched(model):
        close(ask_conv2(name, model, batch()), ask_conv2(name, Net(), batch()))


@pytest.fixture(scope="module")
def exported() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(Net(), (batch(),)).module()


@every
def test_exported_models_are_explained_right_or_refused(name: str, exported: nn.Module) -> None:
    expected = ask(name, Net(), batch())
    try:
        found = ask(name, exported, batch())
    except (LookupError, ValueError, TypeError) as error:
        assert any(word in str(error) for word in ("spatial extent", "changes nothing", "torch.export"))  # noqa: PT017
    else:
        close(found, expected)


# What is lent comes back


@every
def test_gradients_of_a_training_run_are_kept(name: str) -> None:
    model, x = Net(), batch().requires_grad_()
    model(x).sum().backward()
    with untouched(model, x):
        kept = x.grad.clone()
        ask(name, model, x)
        assert torch.equal(x.grad, kept)


@every
def test_no_gradient_is_left(name: str) -> None:
    ask(name, model := Net(), x := batch())
    assert x.grad is None
    assert all(weight.grad is None for weight in model.parameters())


@every
def test_hooks_of_the_user_are_kept_and_called(name: str) -> None:
    seen: list[str] = []
    model = Net()
    model.conv2.register_forward_hook(lambda *_: seen.append("forward"))
    model.conv2.register_forward_pre_hook(lambda *_: seen.append("before"))
    with untouched(model):
        ask(name, model, batch())
    assert {"forward", "before"} <= set(seen)
    seen.clear()
    model(batch())
    assert seen == ["before", "forward"]


@every
def test_a_hook_of_the_user_that_changes_the_output_counts(name: str) -> None:
    model = Net()
    model.conv1.register_forward_hook(lambda module, args, output: output * 2)
    doubled = Net()
    if name in (
        "lrp",
        "conditional_relevance",
    ):  # what stands between a convolution and its batch norm keeps them apart
        doubled = variant(first=lambda self, x: self.pool(self.relu1(self.bn(self.conv1(x) * 2))))
    else:
        with torch.no_grad():
            doubled.conv1.weight *= 2
            doubled.conv1.bias *= 2
    close(ask(name, model, batch()), ask(name, doubled, batch()))


@every
def test_the_model_is_copied_pickled_and_trained_afterwards(name: str) -> None:
    model = Net()
    ask(name, model, batch())
    torch.save(model, file := io.BytesIO())
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        close(other(batch()), model(batch()), 0)
    before = model.conv1.weight.clone()
    model.train()
    model(batch()).sum().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert not torch.equal(model.conv1.weight, before)


@every
def test_an_image_is_explained_alone_as_in_a_batch(name: str) -> None:
    x = batch() * torch.tensor([1.0, 10.0, 0.1]).view(3, 1, 1, 1)
    together = ask(name, Net(), x)
    for item in range(3):
        close(ask(name, Net(), x[item : item + 1], TARGET[item]), together[item : item + 1])


OF_MASKS = LEARNING | {"rise", "d_rise"}  # which tell of masks, whatever the scores are
DEAD = [name for name in NAMES if name not in OF_MASKS]


@pytest.mark.parametrize("name", DEAD)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_dead_map_is_zero_and_not_nan(name: str, dtype: torch.dtype) -> None:
    model = Net().to(dtype)
    with torch.no_grad():
        model.conv2.weight.zero_()
        model.conv2.bias.fill_(-1)
    try:
        found = (
            ask(name, model, batch().to(dtype), layer="relu2")
            if name in LAYERED
            else ask(name, model, batch().to(dtype))
        )
    except ValueError as error:
        pytest.fail(str(error))
    assert found.dtype.is_floating_point
    torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-12 if name == "lime" else 0)  # it solves


@contextmanager
def new_tensors() -> Iterator[Callable[[], int]]:
    """Counts tensors made since, with the collector off: what only it would find counts as kept."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield lambda: sum(1 for each in gc.get_objects() if type(each) in (Tensor, nn.Parameter))
    finally:
        gc.enable()


@every
def test_nothing_grows_in_twenty_calls(name: str) -> None:
    model, x = Net(), batch()
    ask(name, model, x)
    with untouched(model), new_tensors() as count:
        for _ in range(20):
            ask(name, model, x)
        assert count() == 0


@every
def test_tensors_are_freed_after_a_failure(name: str) -> None:
    def head(self: Net, x: Tensor) -> Tensor:
        raise SimulatedError

    model, x = variant(head=head), batch()
    with new_tensors() as count:
        for _ in range(5):
            with pytest.raises(SimulatedError):
                ask(name, model, x)
        assert count() == 0
