"""What models return and what is asked of it: shared buffers, containers, functions that write or raise, odd scales."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from faults.references import CLASS, Net, loops_occlusion, loops_score, net, one_variant_at_a_time, pictures
from faults.situations import LEARNING, NAMES, answer, close, cross, each, settings
from torch import Tensor, nn

from cnnviz import explain
from cnnviz.testing.state_snapshot import state, unchanged

Target = Any


def asked(name: str, model: nn.Module, x: Tensor, target: Target, **how: Any) -> Any:
    return explain(model, x.clone(), name, target=target, **settings(name, "conv2") | how)


def same(
    name: str,
    model: nn.Module,
    twin: nn.Module,
    x: Tensor,
    target: Target,
    twins: Target | None = None,
    tolerance: float = 1e-6,
) -> None:
    """Fails where the model and its plain twin are not answered alike."""
    found = answer(name, model, x, "conv2", target=target)
    expected = answer(name, twin, x, "conv2", target=target if twins is None else twins)
    if isinstance(expected, str):
        assert found == expected
        return
    assert not isinstance(found, str), found
    close(found[0], expected[0], tolerance)
    close(found[1], expected[1], tolerance)


def into_a_buffer(self: Net, x: Tensor) -> Tensor:
    """Scores without gradients are written into memory that the next pass writes anew."""
    scores = Net.forward(self, x)
    if torch.is_grad_enabled():
        return scores
    self.kept[: len(scores)] = scores
    return self.kept[: len(scores)]


TARGETS: dict[str, Target] = {
    "a view of it": lambda output: output[:, CLASS],
    "a class": CLASS,
    "the prediction": None,
    "a function for each input": [lambda output: output[:, 1], lambda output: output[:, 2]],
}


@cross(TARGETS)
def test_scores_in_one_buffer_of_the_model(case: str, name: str) -> None:
    model = net(into_a_buffer, kept=lambda: nn.Buffer(torch.zeros(512, 5)))
    same(name, model, net(), pictures(2), TARGETS[case])


@each(name for name in NAMES if name != "cam")
def test_a_target_function_that_writes_the_output(name: str) -> None:
    def writes(output: Tensor) -> Tensor:
        output.mul_(2.0)
        return output[:, CLASS]

    same(name, net(), net(), pictures(2), writes, lambda output: (output * 2)[:, CLASS])


PER_BATCH = [
    name for name in NAMES if name not in {"deeplift", "deeplift_shap", *LEARNING, "cam", "saliency_confusion"}
]


@each(
    name for name in ("occlusion", "rise", "lime", "feature_ablation", "gradient", "integrated_gradients", "grad_cam")
)
def test_a_target_function_that_compares_the_inputs_of_its_batch(name: str) -> None:
    """It is called with outputs of whole batches, whatever is passed together."""

    def beyond_the_mean(output: Tensor) -> Tensor:
        return output[:, CLASS] - output[:, CLASS].mean()

    x = pictures(2)
    found = asked(name, net(), x, beyond_the_mean).values
    expected = asked(name, net(), x, beyond_the_mean, memory=1).values
    close(found, expected)
    if name == "occlusion":
        by_hand = torch.zeros_like(found)
        model = net()
        with torch.no_grad():
            for top in range(0, 16, 4):
                for left in range(0, 16, 4):
                    hidden = x.clone()
                    hidden[:, :, top : top + 4, left : left + 4] = 0
                    drop = beyond_the_mean(model(x)) - beyond_the_mean(model(hidden))
                    by_hand[:, 0, top : top + 4, left : left + 4] = drop[:, None, None]
        close(found, by_hand)


CONTAINERS: dict[str, tuple[Any, Target]] = {
    "dict": (lambda scores: {"a": scores}, lambda output: output["a"][:, CLASS]),
    "tuple": (lambda scores: (scores, scores * 0), lambda output: output[0][:, CLASS]),
    "namespace": (lambda scores: SimpleNamespace(logits=scores), lambda output: output.logits[:, CLASS]),
    "nested": (lambda scores: {"a": [(scores,)]}, lambda output: output["a"][0][0][:, CLASS]),
}


@cross(CONTAINERS, [name for name in NAMES if name not in {"cam", *LEARNING}])
def test_outputs_in_containers(case: str, name: str) -> None:
    wrap, target = CONTAINERS[case]
    model = net(lambda self, x: wrap(Net.forward(self, x)))
    same(name, model, net(), pictures(), target, lambda output: output[:, CLASS])


@cross(CONTAINERS, ("gradient", "grad_cam", "occlusion", "ablation_cam", "rise"))
def test_outputs_in_containers_of_large_pictures(case: str, name: str) -> None:
    """Which are computed in channels last."""
    wrap, target = CONTAINERS[case]
    model, x = net(lambda self, x: wrap(Net.forward(self, x))).float(), pictures(size=(64, 64)).float()
    same(name, model, net().float(), x, target, lambda output: output[:, CLASS], tolerance=1e-3)


@each(name for name in NAMES if name not in {"activation", "eigen_cam"})
def test_a_target_function_that_raises_leaves_nothing(name: str) -> None:
    model, x, calls = net(), pictures(), [0]
    expected = answer(name, model, x, "conv2", memory=1)

    def raises(output: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] == last:
            raise KeyError("the user's own")
        return output[:, CLASS]

    last = -1
    if isinstance(answer(name, model, x, "conv2", target=raises, memory=1), str):
        return
    last, calls[0] = calls[0], 0
    with unchanged("the call", lambda: state(model, x)), pytest.raises(KeyError, match="the user's own"):
        asked(name, model, x, raises, memory=1)
    found = answer(name, model, x, "conv2", memory=1)
    assert not isinstance(found, str)
    assert not isinstance(expected, str)
    close(found[0], expected[0], 0)


@pytest.mark.parametrize("name", ["gradient", "occlusion", "grad_cam"])
def test_a_list_of_pictures_is_no_picture_with_an_argument(name: str) -> None:
    """A list stacks or is refused; only a tuple is several inputs of the model."""

    class Masked(Net):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return super().forward(x if mask is None else x * mask)

    model, both = Masked().double(), [pictures(), pictures(seed=2)]
    found = None
    try:
        found = explain(model, both, name, target=CLASS, **settings(name, "conv2"))
    except (TypeError, ValueError) as error:
        assert "list" in str(error)  # noqa: PT017
    if found is not None:
        assert len(found) == 2
        close(found.score, loops_score(net(), torch.cat(both)))


SCALES = {"a million": 1e6, "a billionth": 1e-9}
UNSCALED = {"ablation_cam", "activation", "eigen_cam", "projections"}  # by their definition
SQUARED = {"smoothgrad_squared", "vargrad", "guided_grad_cam"}
NONLINEAR = {
    "rise",
    "grad_cam_plus_plus",
    "score_cam",
    "saliency_confusion",
    "eigen_grad_cam",
    "cam",
    *LEARNING,
    "fullgrad",
}


@cross(SCALES, [name for name in NAMES if name not in NONLINEAR])
def test_maps_scale_with_the_score(case: str, name: str) -> None:
    factor = SCALES[case]
    scaled = asked(name, net(lambda self, x: Net.forward(self, x) * factor), pictures(), CLASS).values
    plain = asked(name, net(), pictures(), CLASS).values
    power = 0 if name in UNSCALED else 2 if name in SQUARED else 1
    close(scaled, plain * factor**power, 1e-6)


@cross(SCALES, ("gradient", "integrated_gradients", "occlusion", "ablation_cam", "grad_cam", "lime", "deeplift"))
def test_maps_scale_with_the_score_in_float32(case: str, name: str) -> None:
    factor = SCALES[case]
    scaled = asked(name, net(lambda self, x: Net.forward(self, x) * factor).float(), pictures().float(), CLASS).values
    plain = asked(name, net().float(), pictures().float(), CLASS).values
    expected = plain.double() * (1 if name in UNSCALED else factor)
    torch.testing.assert_close(scaled.double(), expected, rtol=0, atol=2e-3 * float(expected.abs().max()))


@each(name for name in NAMES if name not in NONLINEAR | UNSCALED | {"d_rise"})
def test_maps_beside_a_large_constant(name: str) -> None:
    """Rounding of a score near 1e5 in float32 is no evidence; maps stay what they are to its digits."""
    model, twin = net(lambda self, x: Net.forward(self, x) + 1e5).float(), net().float()
    found = asked(name, model, pictures().float(), CLASS).values
    expected = asked(name, twin, pictures().float(), CLASS).values
    rounding = 1e5 * 2**-23
    assert float((found - expected).abs().max()) <= 200 * rounding + 1e-3 * float(expected.abs().max())


@each()
def test_denormal_weights(name: str) -> None:
    model = net()
    with torch.no_grad():
        model.head.weight *= 1e-310
        model.head.bias.zero_()
    found = answer(name, model, pictures(), "conv2")
    if isinstance(found, str):
        assert "\n" not in found
    else:
        assert bool(found[0].isfinite().all())
        if name == "gradient":
            with one_variant_at_a_time():
                (leaf,) = [pictures().requires_grad_()]
                (slope,) = torch.autograd.grad(model(leaf)[0, CLASS], leaf)
            assert torch.equal(found[0], slope)
        if name == "occlusion":
            torch.testing.assert_close(found[0], loops_occlusion(model, pictures()), rtol=1e-6, atol=0)


@each()
def test_float16_that_overflows_is_told(name: str) -> None:
    model = Net()
    with torch.no_grad():
        model.head.weight.fill_(60000)
    with pytest.raises(ValueError, match=r"not finite|NaN or infinite"):
        asked(name, model.half(), (pictures() * 100).half(), CLASS)
