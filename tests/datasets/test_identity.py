"""By what a run is known again: what changes answers changes it, and all else is equal in all processes."""

from __future__ import annotations

import functools
import os
import pickle
import random
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import cnnviz
from cnnviz.datasets import Item
from cnnviz.datasets.workers.fingerprint import fingerprint, layers_of, weights_of

GAIN = 3


class Scaled(nn.Module):
    """A layer of one's own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 4, 3)
        self.passes: list[int] = []
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        self.passes.append(len(inputs))
        self.last = inputs
        scores: Tensor = self.layer(inputs).mean((2, 3)) * GAIN
        return scores


def scaled(**attributes: Any) -> nn.Module:
    model = Scaled().eval()
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


def conv(**settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(1, 2, 3, **settings)


def hooked(factor: float) -> nn.Module:
    model = scaled()
    model.register_forward_hook(lambda module, inputs, output: output * factor)
    return model


def with_forward(factor: float) -> nn.Module:
    model = scaled()
    model.forward = MethodType(lambda self, inputs: self.layer(inputs) * factor, model)  # type: ignore[method-assign]
    return model


def of_class(factor: float) -> nn.Module:
    class Own(nn.Module):
        kept = factor

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs * self.kept

    return Own()


def by_code(text: str) -> nn.Module:
    space: dict[str, Any] = {"nn": nn, "__name__": "own"}
    exec(f"class Own(nn.Module):\n def forward(self, inputs):\n  return {text}", space)
    made: nn.Module = space["Own"]()
    return made


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: int):
        self.value = value


def gained(value: float) -> float:
    return value * GAIN


LONG = torch.arange(5000.0)
PAIRS: dict[str, Callable[[int], Any]] = {
    "stride": lambda n: conv(stride=n),
    "padding mode": lambda n: conv(padding=1, padding_mode=("zeros", "reflect")[n - 1]),
    "number": lambda n: scaled(gain=n),
    "private": lambda n: scaled(_gain=n),
    "tensor": lambda n: scaled(gain=torch.tensor(float(n))),
    "list": lambda n: scaled(gains=[1, n]),
    "function": lambda n: scaled(act=(functional.relu, functional.gelu)[n - 1]),
    "partial": lambda n: scaled(act=functools.partial(functional.leaky_relu, negative_slope=n)),
    "module in a list": lambda n: scaled(others=[conv(stride=n)]),
    "hook": hooked,
    "own forward": with_forward,
    "class": of_class,
    "code": lambda n: by_code(f"inputs * {n}"),
    "slots": Slotted,
    "deque": lambda n: deque([LONG, LONG + (torch.arange(5000) == 2000) * n]),
    "generator": random.Random,
    "bound": lambda n: {1: n}.get,
    "cached": lambda n: functools.cache(lambda value: value * n),
    "closure": lambda n: lambda value: value + n,
}


@pytest.mark.parametrize("kind", PAIRS)
def test_what_changes_answers_changes_the_identity(kind: str) -> None:
    one, other, again = (fingerprint(PAIRS[kind](number)) for number in (1, 2, 1))
    assert one == again
    assert one != other


def test_a_global_that_a_function_or_a_layer_uses_belongs_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(gained), layers_of(scaled()), weights_of(scaled())
    monkeypatch.setitem(globals(), "GAIN", 4)
    assert fingerprint(gained) != before[0]
    assert layers_of(scaled()) != before[1]
    assert weights_of(scaled()) == before[2]


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "reference.npy"
    file.write_bytes(b"one")
    before = fingerprint(file)
    assert fingerprint(tmp_path / "reference.npy") == before
    file.write_bytes(b"two")
    assert fingerprint(file) != before


def test_what_a_pass_notes_does_not_count() -> None:
    model = Scaled()
    before = layers_of(model)
    model(torch.ones(2, 3, 8, 8))
    assert (model.calls, model.passes, len(model.last)) == (1, [2], 2)
    assert layers_of(model) == before


def test_loops_end() -> None:
    model = scaled()
    model.parent = [model]  # type: ignore[assignment]
    model.layer.parent = (model,)  # type: ignore[union-attr, assignment]
    assert layers_of(model) != layers_of(scaled())
    loop: list[Any] = []
    loop.append(loop)
    assert fingerprint(loop) != fingerprint([])


SCRIPT = """
import functools, sys, threading
import torch
from torch import nn
import cnnviz
from cnnviz.datasets.workers.fingerprint import fingerprint
def own(value, names={"b", "a", "c"}):
    return value in {"x", "y", "z"}
class Own(nn.Module):
    def forward(self, inputs):
        return own(inputs)
model = Own()
model.names = {"p": {"q", "r"}, "s": frozenset("tuv")}
values = [model, own, functools.partial(own, names=None), threading.Lock(), object()]
values += [cnnviz.attributions["smoothgrad"]()]
print(*map(fingerprint, values))
"""


def test_equal_values_are_equal_in_another_process(capsys: pytest.CaptureFixture[str]) -> None:
    seed = {"PYTHONHASHSEED": "1"}  # strings have other hashes there, and sets another order
    there = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**os.environ, **seed}, capture_output=True, text=True, check=True
    ).stdout
    exec(SCRIPT, {"__name__": "__main__"})
    assert capsys.readouterr().out == there
    assert len(set(there.split())) == 6


class Inputs:
    """A source of tensors."""

    def items(self) -> Iterator[Item]:
        return (Item(str(number)) for number in range(5))

    def open(self, item: Item) -> Tensor:
        if item.id == "3":
            raise ValueError(f"{object()!r} is no picture")
        return torch.randn((3, 8, 8), generator=torch.Generator().manual_seed(int(item.id)))

    def described(self) -> dict[str, Any]:
        return {"kind": "inputs"}


def times(run: Any, factor: float = 1) -> Tensor:
    product: Tensor = run.inputs * factor
    return product


def sent(job: Any) -> Any:
    """What is computed by a job that was pickled, in this process."""
    return cnnviz.backends["local"](workers=0)(pickle.loads(pickle.dumps(job)))


def test_a_model_that_notes_its_passes_and_methods_that_print_with_addresses(tmp_path: Path) -> None:
    asked = ["gradient", functools.partial(times, factor=2.0)]
    for out, backend in (("here", cnnviz.backends["local"](workers=0)), ("sent", sent)):
        model = Scaled().eval()
        for _ in range(2):  # the second time nothing is left to do
            batch = cnnviz.batch(model, Inputs(), asked, tmp_path / out, backend=backend, shard_size=3, batch_size=2)
        assert batch.methods == ("gradient", "functools.partial(<function times>, factor=2.0)")
        assert [row["error"] for row in batch.failed] == ["<object object> is no picture"]
    for shard in ("000000", "000001"):
        one, other = (tmp_path / out / "shards" / f"{shard}.safetensors" for out in ("here", "sent"))
        assert one.read_bytes() == other.read_bytes()
        assert not re.search(rb"0x[0-9a-f]{6}", one.read_bytes())


def test_how_torch_rounds_belongs_to_the_identity_and_goes_to_workers(tmp_path: Path) -> None:
    def ask(backend: Any) -> None:
        cnnviz.batch(Scaled().eval(), Inputs(), "gradient", tmp_path, backend=backend, shard_size=3)

    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision

    def elsewhere(job: Any) -> Any:
        matmul.fp32_precision = before  # as a new process has it
        return sent(job)

    try:
        matmul.fp32_precision = "bf16"
        ask(elsewhere)
        assert matmul.fp32_precision == "bf16"  # its worker is this process
        with torch.autocast("cpu"), pytest.raises(ValueError, match=r"arithmetic\.autocast is not given there and bfl"):
            ask(sent)
    finally:
        matmul.fp32_precision = before
    with pytest.raises(ValueError, match=r"arithmetic\.mkldnn\.matmul is bf16 there and .* now"):
        ask(sent)
