"""Threads that ask one model at once get the answers they would get one after another."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cnnviz import explain
from cnnviz.registry.registry import Registry
from cnnviz.testing import SmallNet

ROUNDS = 40
QUESTIONS: list[dict[str, Any]] = [
    {"attribution": "grad_cam", "layer": "third", "target": 1},
    {"attribution": "guided_backprop", "target": 2},
    {"attribution": "gradient", "target": [0, 3]},
    {"attribution": "grad_cam", "layer": "first", "target": 4},
    {"attribution": "fullgrad", "target": 0},
    {"attribution": "smoothgrad", "samples": 3, "target": None},
    {"attribution": "integrated_gradients", "steps": 3, "target": 3},
    {"attribution": "saliency_confusion", "target": 2},
]


def batch(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 12, 10, generator=torch.Generator().manual_seed(seed))


def together(*jobs: Callable[[], None]) -> None:
    """Run at once; the first failure of any is raised."""
    failures: list[BaseException] = []
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], None]) -> None:
        try:
            start.wait(10)
            job()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]


def asking(model: nn.Module, inputs: Tensor, question: dict[str, Any]) -> Callable[[], None]:
    expected = explain(SmallNet(), inputs, **question).values

    def job() -> None:
        for _ in range(ROUNDS):
            torch.testing.assert_close(explain(model, inputs, **question).values, expected, rtol=1e-5, atol=1e-7)

    return job


def inferring(model: nn.Module, inputs: Tensor) -> Callable[[], None]:
    with torch.no_grad():
        expected = model(inputs)

    def job() -> None:
        for _ in range(3 * ROUNDS):
            with torch.inference_mode():
                torch.testing.assert_close(model(inputs), expected, rtol=0, atol=0)

    return job


def training(model: nn.Module, inputs: Tensor) -> Callable[[], None]:
    """Ordinary backward passes, for their gradients at the input."""

    def slope() -> Tensor:
        asked = inputs.clone().requires_grad_()
        return torch.autograd.grad(model(asked).sum(), asked)[0]

    expected = slope()

    def job() -> None:
        for _ in range(3 * ROUNDS):
            torch.testing.assert_close(slope(), expected, rtol=1e-5, atol=1e-7)

    return job


@pytest.mark.parametrize("first", range(0, len(QUESTIONS), 2), ids=lambda place: QUESTIONS[place]["attribution"])
def test_two_questions_and_an_inference_at_once(first: int) -> None:
    model = SmallNet()
    together(
        asking(model, batch(0), QUESTIONS[first]),
        asking(model, batch(1), QUESTIONS[first + 1]),
        inferring(model, batch(2)),
        training(model, batch(3)),
    )
    assert not any(module._forward_hooks for module in model.modules())


def test_one_question_from_many_threads_at_different_layers() -> None:
    model = SmallNet()
    layers = ("first", "second", "third", "relu")
    questions = [{"attribution": "grad_cam", "layer": layer, "target": 1} for layer in layers]
    together(*(asking(model, batch(place), question) for place, question in enumerate(questions)))


def test_a_layer_found_by_many_threads_at_once() -> None:
    for seed in range(8):
        model, expected = SmallNet(seed=seed), SmallNet(seed=seed)
        wanted = explain(expected, batch(), "layer_cam", target=0).values
        torch.testing.assert_close(explain(SmallNet(seed=seed), batch(), "layer_cam", target=0).values, wanted)

        def job(model: nn.Module = model, wanted: Tensor = wanted) -> None:
            torch.testing.assert_close(explain(model, batch(), "layer_cam", target=0).values, wanted)

        together(job, job, job, inferring(model, batch(2)))


def test_a_failure_in_one_thread_is_no_matter_to_another() -> None:
    model, inputs = SmallNet(), batch()

    def failing() -> None:
        for _ in range(ROUNDS):
            with pytest.raises(ValueError, match="there is no class 99"):
                explain(model, inputs, "guided_grad_cam", target=99)

    together(failing, asking(model, inputs, QUESTIONS[0]), asking(model, inputs, QUESTIONS[1]))


class Gate(nn.Module):
    """Keeps each thread that has a gate inside the model until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: dict[int, tuple[threading.Event, threading.Event]] = {}

    def forward(self, x: Tensor) -> Tensor:
        if threading.get_ident() in self.gates:
            inside, go_on = self.gates[threading.get_ident()]
            inside.set()
            assert go_on.wait(10)
        return x


def test_compiled_models_run_compiled_again_after_threads_asked_them() -> None:
    from torch._dynamo import eval_frame

    gate = Gate()
    model = SmallNet(between=gate)
    model.compile(backend="eager")
    events = [(threading.Event(), threading.Event()) for _ in range(2)]

    def ask(place: int) -> None:
        gate.gates[threading.get_ident()] = events[place]
        explain(model, batch(), "gradient", target=1)

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(2)]
    try:
        for thread, (inside, _) in zip(threads, events, strict=True):
            thread.start()
            assert inside.wait(10)
        for thread, (_, go_on) in zip(threads, events, strict=True):
            go_on.set()
            thread.join(10)
        assert eval_frame._stance.stance == "default"
    finally:
        torch.compiler.set_stance("default")


def test_methods_are_loaded_once_by_whoever_comes_first() -> None:
    for _ in range(20):
        registry: Registry[Any] = Registry("cnnviz.attributions")
        found: list[Any] = []

        def load(registry: Registry[Any] = registry, found: list[Any] = found) -> None:
            found.append(registry["layer_cam"])

        switch = sys.getswitchinterval()
        try:
            sys.setswitchinterval(1e-6)  # threads take turns as often as they can
            together(load, load, load, load)
        finally:
            sys.setswitchinterval(switch)
        assert all(each is found[0] for each in found)


class Meeting(nn.Module):
    """Waits in the middle of the model until two threads are there."""

    def __init__(self) -> None:
        super().__init__()
        self.both = threading.Barrier(2)

    def forward(self, x: Tensor) -> Tensor:
        with contextlib.suppress(threading.BrokenBarrierError):
            self.both.wait(2)
        return x


def test_hooks_of_threads_do_not_replace_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch numbers hooks without a lock; two of one number in one module would be one hook."""
    from torch.utils.hooks import RemovableHandle

    model, read = SmallNet(between=Meeting()), threading.Barrier(2)
    plain = RemovableHandle.__init__

    def slowly(self: RemovableHandle, *args: Any, **kwargs: Any) -> None:
        number = RemovableHandle.next_id
        with contextlib.suppress(threading.BrokenBarrierError):
            read.wait(0.5)  # both have read the same number, unless one of them is kept waiting outside
            RemovableHandle.next_id = number
        plain(self, *args, **kwargs)

    expected = explain(SmallNet(), batch(), "layer_cam", target=0, layer="third").values
    monkeypatch.setattr(RemovableHandle, "__init__", slowly)

    def job() -> None:
        torch.testing.assert_close(explain(model, batch(), "layer_cam", target=0, layer="third").values, expected)

    together(job, job)
