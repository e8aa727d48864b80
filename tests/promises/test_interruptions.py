"""Whatever ends a question, at whatever moment: the model and torch are as they were, and the next answer is right."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import tiny_inputs
from struck import interrupted
from torch import Tensor, nn
from torch._dynamo import eval_frame
from torch.utils.checkpoint import CheckpointFunction

from cnnviz import explain, synthesize
from cnnviz.engine import forward
from cnnviz.engine.checkpointing import checkpoints_set_aside
from cnnviz.testing.state_snapshot import equal, state

SIGNALS = """
import json, random, signal, sys, time, torch
import torch.nn as nn
from cnnviz import explain
from cnnviz.testing import SmallNet
from cnnviz.testing.state_snapshot import equal, state
torch.set_num_threads(1)
def strike(*_): raise KeyboardInterrupt
signal.signal(signal.SIGALRM, strike)
moments, left, met = random.Random(3), [], 0
for method, settings in {"grad_cam": {"layer": "third"}, "guided_backprop": {}, "occlusion": {"window": 6}}.items():
    net, inputs = SmallNet(), torch.rand(1, 3, 12, 10)
    def ask(): explain(net, inputs, method, target=1, **settings)
    ask()
    begin = time.perf_counter()
    for _ in range(5): ask()
    length, before = (time.perf_counter() - begin) / 5, state(net, inputs)
    for _ in range(int(sys.argv[1])):
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, max(1e-5, moments.random() * length))
                ask()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            met += 1
        after = state(net, inputs)
        left += [words for words in before if not equal(before[words], after[words])]
print(json.dumps([met, left]))
"""


def test_an_interruption_at_a_random_moment_leaves_nothing() -> None:
    # a process of its own: what is left may come out as late as the next garbage collection
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", SIGNALS, "50"], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    met, left = json.loads(done.stdout)
    assert met > 50
    assert left == []


class Keeps(nn.Module):
    """Keeps what it saw in an attribute, a list and a dict."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.layer = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)
        self.register_buffer("held", torch.zeros(2, 4, 5, 6))
        self.all: list[Tensor] = []
        self.named: dict[str, Any] = {"maps": []}

    def forward(self, x: Tensor) -> Tensor:
        self.features = self.layer(self.first(x).relu()).relu()
        self.all.append(self.features)
        self.named["maps"].append((self.features, 1))
        self.named["last"] = self.features
        self.held[: len(x)] = self.features[:2]
        return self.head(self.features.mean((2, 3)))


ASKED: dict[str, Callable[[nn.Module, Tensor], object]] = {
    "grad_cam": lambda net, inputs: explain(net, inputs, "grad_cam", layer="layer", target=1),
    "guided_backprop": lambda net, inputs: explain(net, inputs, "guided_backprop", target=1),
    "ablation_cam": lambda net, inputs: explain(net, inputs, "ablation_cam", layer="layer", target=1),
    "folded": lambda net, inputs: explain(net, inputs, "integrated_gradients", steps=2, target=1),
    "class_image": lambda net, inputs: synthesize(net, "class_image", target=1, size=(5, 6), steps=2),
}


# the error may strike in what torch calls when a tensor goes, where nobody can catch it
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeoutError])
@pytest.mark.parametrize("name", ASKED)
def test_an_exception_at_any_line_leaves_nothing(name: str, kind: type[BaseException]) -> None:
    net, inputs, ask = Keeps().double().eval(), tiny_inputs(), ASKED[name]
    with torch.no_grad():
        net(inputs)
    expected = ask(net, inputs)
    before = state(net, inputs)
    before = {words: value for words, value in before.items() if "values of held" not in words}
    kept = [net.features, *net.all, *net.named["maps"][0]]
    line, met = 1, 0
    while line < 200_000 and interrupted(lambda: ask(net, inputs), line, kind):
        met += 1
        gc.collect()
        after = state(net, inputs)
        assert not [words for words in before if not equal(before[words], after[words])], line
        assert all(now is then for now, then in zip([net.features, *net.all, *net.named["maps"][0]], kept, strict=True))
        line += 97 + line // 3
    assert met >= 10
    again = ask(net, inputs)
    assert torch.equal(values(again), values(expected))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeoutError])
def test_an_exception_at_any_line_leaves_what_torch_has_for_all_threads(kind: type[BaseException]) -> None:
    """How it calls what it compiled, and its checkpoints."""
    net, inputs = Keeps().double().eval(), tiny_inputs()
    settings = (checkpoints_set_aside, forward._eager)
    line = 1
    while interrupted(lambda: ASKED["guided_backprop"](net, inputs), line, kind, in_a_setting):
        assert eval_frame._stance.stance == "default", line
        assert "apply" not in vars(CheckpointFunction), line
        assert torch.utils.checkpoint._checkpoint_hook.__module__ == "torch.utils.checkpoint", line
        assert not any(setting.inside for setting in settings), line
        line += 1
    assert line > 50


def in_a_setting(frame: Any) -> bool:
    """True inside of what changes such a setting, or of torch's part of it."""
    names = {"hold", "enter", "leave", "change", "restore", "end", "__init__", "_set_stance"}
    files = ("loans.py", "checkpointing.py", "forward.py", "eval_frame.py", "decorators.py")
    return frame.f_code.co_name in names and frame.f_code.co_filename.endswith(files)


def values(answer: Any) -> Tensor:
    found: Tensor = answer.values if hasattr(answer, "values") else answer.inputs
    return found


@pytest.mark.parametrize("name", ASKED)
def test_a_model_that_keeps_what_it_saw_holds_no_graph_of_ours(name: str) -> None:
    net, inputs = Keeps().double().eval(), tiny_inputs()
    ASKED[name](net, inputs)
    assert not hasattr(net, "features")
    assert net.all == []
    assert net.named == {"maps": []}
    assert not net.held.requires_grad
    with torch.no_grad():
        net(inputs)
    ASKED[name](net, inputs)
    assert len(net.all) == len(net.named["maps"]) == 1
    assert not any(each.requires_grad for each in (net.features, net.all[0], net.named["last"], net.held))


class FailsOnce(nn.Module):
    """Raises an error in its pass number ``at``, and in no other one."""

    def __init__(self, at: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.layer = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)
        self.at, self.passes = at, 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        if self.passes == self.at:
            raise RuntimeError("the device was lost")
        return self.head(self.layer(self.first(x).relu()).relu().mean((2, 3)))


@pytest.mark.parametrize("size", [16, 64], ids=lambda size: f"{size} pixels")  # the larger ones pass channels last
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        *(("gradient", {}), ("grad_cam", {}), ("guided_backprop", {}), ("deeplift", {}), ("fullgrad", {})),
        *(("ablation_cam", {}), ("score_cam", {}), ("occlusion", {"window": 8}), ("rise", {"masks": 8})),
        *(("feature_ablation", {"pieces": 4}), ("integrated_gradients", {"steps": 4})),
    ],
)
def test_an_error_of_any_one_pass_comes_out(method: str, settings: dict[str, Any], size: int) -> None:
    inputs = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))

    def ask(at: int) -> FailsOnce:
        net = FailsOnce(at).eval()
        explain(net, inputs, method, target=1, **settings)
        return net

    for at in range(1, 1 + ask(at=0).passes):
        with pytest.raises(RuntimeError, match="the device was lost"):
            ask(at)
