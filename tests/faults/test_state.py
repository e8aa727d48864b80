"""What is left behind: modes, hooks, graphs, random numbers, memory, and answers of one question in another."""

from __future__ import annotations

import copy
import pickle
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from faults.references import CLASS, Net, net, pictures
from faults.situations import LAYERED, LEARNING, NAMES, answer, close, each, settings
from torch import Tensor, nn

from cnnviz import evaluate, explain, metrics, synthesize
from cnnviz.testing.state_snapshot import state, unchanged


def small() -> Tensor:
    return pictures(size=(8, 8)).float()


INTERRUPTED = """
import random, signal, sys, time, torch
sys.path[:0] = sys.argv[1:]
torch.set_num_threads(1)
from faults.references import CLASS, Net, pictures
from faults.situations import settings
from cnnviz import explain

def state(model):
    parts = [(len(part._forward_hooks), len(part._forward_pre_hooks), sorted(vars(part))) for part in model.modules()]
    return parts, [(weight.requires_grad, weight.grad is None, weight._version) for weight in model.parameters()]

def interrupt(*args):
    raise KeyboardInterrupt

def modes():
    return torch.is_grad_enabled(), torch._C._len_torch_function_stack(), torch.is_inference_mode_enabled()

signal.signal(signal.SIGALRM, interrupt)
drawn, left, hits, x = random.Random(5), [], 0, pictures(size=(8, 8)).float()
for name in ("grad_cam", "guided_backprop", "integrated_gradients", "occlusion"):
    model = Net()
    ask = lambda: explain(model, x, name, target=CLASS, **settings(name, "conv2"))
    ask()
    begin = time.perf_counter()
    for _ in range(10):
        ask()
    took = (time.perf_counter() - begin) / 10
    before, at_rest = state(model), (True, 0, False)
    for _ in range(50):
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, max(1e-5, drawn.random() * took))
                ask()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            hits += 1
        except (RuntimeError, ValueError) as error:
            left.append(f"{name}: {error}")
        if state(model) != before:
            left.append(f"{name}: the model")
            model = Net()
            before = state(model)
        if modes() != at_rest:
            left.append(f"{name}: {modes()}")
            with torch._C.DisableTorchFunction():
                while torch._C._len_torch_function_stack():
                    torch.overrides._pop_mode()
                torch._C._set_grad_enabled(True)
assert hits > 75, hits
assert not left, (len(left), hits, left[:5])
"""


def test_an_interruption_at_any_moment_leaves_nothing() -> None:
    """In a process of its own: what is left may come out as late as the next garbage collection."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INTERRUPTED, *sys.path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-400:]


@each()
def test_a_model_that_keeps_its_features_can_be_copied_afterwards(name: str) -> None:
    def forward(self: Net, x: Tensor) -> Tensor:
        self.features = self.maps(x)
        return self.classify(self.features)

    model = net(forward)
    with torch.no_grad():
        model(pictures())
    answer(name, model, pictures(), "conv2")
    assert not model.features.requires_grad
    copied = copy.deepcopy(model)
    assert torch.equal(copied.features, model.features)
    pickle.dumps(model.features)


AUTOMATIC = [name for name in LAYERED if name not in {"cam", "projections"}]


@each(AUTOMATIC)
def test_the_automatic_layer_follows_a_flag_of_the_model(name: str) -> None:
    """What was found out about a model is not kept where a flag sends it another way."""

    def forward(self: Net, x: Tensor) -> Tensor:
        maps = self.maps(x)
        return self.classify(torch.relu(self.third(maps)) if self.deep else maps)

    def model(deep: bool) -> nn.Module:
        made = net(forward, third=lambda: nn.Conv2d(16, 16, 3, padding=1))
        made.deep = deep
        return made

    switched, chosen = model(False), settings(name, "conv2") | {"target": CLASS, "layer": None}
    explain(switched, pictures(), name, **chosen)
    switched.deep = True
    found, expected = (explain(each, pictures(), name, **chosen) for each in (switched, model(True)))
    assert found.recipe == expected.recipe
    close(found.values, expected.values, 0)


@each(name for name in NAMES if name not in {"activation", "cam", "eigen_cam", "projections", *LEARNING})
def test_a_question_inside_a_target_function(name: str) -> None:
    model, asked = net(), []
    expected = answer(name, model, pictures(), "conv2", target=lambda output: output[:, CLASS])

    def target(output: Tensor) -> Tensor:
        if not asked:
            asked.append(explain(model, pictures(seed=9), "guided_backprop", target=2).values)
        return output[:, CLASS]

    found = answer(name, model, pictures(), "conv2", target=target)
    if isinstance(expected, str):
        assert found == expected
        return
    assert not isinstance(found, str)
    close(found[0], expected[0])
    close(asked[0], explain(net(), pictures(seed=9), "guided_backprop", target=2).values)


def test_a_question_inside_the_progress_of_a_synthesis() -> None:
    model, how = Net(), {"target": 1, "steps": 4, "size": 16}
    expected = synthesize(model, "class_image", **how).inputs
    found = synthesize(
        model,
        "class_image",
        progress=lambda done, total: explain(model, small(), "guided_backprop", target=1) and None,
        **how,
    )
    close(found.inputs, expected, 0)
    x = small()
    with unchanged("the call", lambda: state(model, x)), pytest.raises(ZeroDivisionError):
        synthesize(model, "class_image", progress=lambda done, total: 1 / 0, **how)


def generators() -> tuple[bytes, bytes, Any]:
    return torch.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tobytes(), random.getstate()


def untouched(ask: Callable[[], Any]) -> None:
    before = generators()
    ask()
    assert generators() == before


@each()
def test_the_random_numbers_of_others_are_untouched(name: str) -> None:
    model = Net()
    untouched(lambda: answer(name, model, small(), "conv2"))


@each(metrics)
def test_the_random_numbers_of_others_are_untouched_by_metrics(name: str) -> None:
    model = Net()
    result = explain(model, small(), "integrated_gradients", target=1, steps=2)
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[:, 2:5, 2:5] = True
    few = {key: 2 for key in ("samples", "steps") if key in metrics[name].settings}
    untouched(lambda: evaluate(result, name, masks=masks, model=model, **few))


SYNTHESES: dict[str, dict[str, Any]] = {
    "class_image": {"target": 1, "steps": 2},
    "deep_dream": {"layer": "conv2", "channel": 1, "steps": 2, "octaves": 1},
    "feature_image": {"layer": "conv2", "channel": 1, "steps": 2},
    "inversion": {"of": small(), "layer": "conv2", "steps": 2},
    "multiscale_ascent": {"layer": "conv2", "channel": 1, "steps": 2},
}


@each(SYNTHESES)
def test_the_random_numbers_of_others_are_untouched_by_syntheses(name: str) -> None:
    model = Net()
    size = 16 if name == "multiscale_ascent" else 8
    untouched(lambda: synthesize(model, name, size=size, **SYNTHESES[name]))


def test_a_batch_takes_no_more_memory_than_its_budget_allows() -> None:
    """Eight pictures of 512 x 512 in a process of its own; one pass of one picture comes first."""
    code = """
import resource, torch; from torch import nn; import cnnviz
torch.set_num_threads(1)
half = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()]
model = nn.Sequential(*half, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).eval()
x = torch.rand(8, 3, 512, 512)
with torch.no_grad():
    model(x[:1])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
cnnviz.explain(model, x, "occlusion", target=1, memory=50 * 2**20, window=128, stride=128)
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 500


def test_eight_threads_ask_one_model() -> None:
    model, x, wrong = Net(), small(), []
    names = [name for name in NAMES if name not in {"cam", *LEARNING}]
    expected = {name: answer(name, model, x, "conv2") for name in names}

    def work(seed: int) -> None:
        drawn = random.Random(seed)
        for _ in range(12):
            name = drawn.choice(names)
            found, wanted = answer(name, model, x, "conv2"), expected[name]
            try:
                assert not isinstance(found, str)
                assert not isinstance(wanted, str)
                close(found[0], wanted[0], 1e-3)
            except AssertionError as error:
                wrong.append(f"{name}: {error}")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        workers = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
