"""A question in its own precision: torch's flags are set while it is answered, put back however it ends, and told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import tiny_inputs
from safetensors import safe_open
from safetensors.torch import save_file
from struck import interrupted
from torch import Tensor, nn

from cnnviz import Explanation, evaluate, explain
from cnnviz.engine.agreement import agrees
from cnnviz.engine.loans import Loan, borrows
from cnnviz.engine.speed import memory_format as layouts
from cnnviz.engine.speed import precision_turns
from cnnviz.engine.speed.memory_format import LARGE_ON_CUDA, ORDINARY, PassKind
from cnnviz.engine.speed.precision_turns import PrecisionTurns, hold_precision
from cnnviz.engine.speed.tf32 import ComputedIn, Float32, Tf32Flags, computed_in, of_cuda

backends: Any = torch.backends
FLOAT32, TF32 = ComputedIn("float32", "float32"), ComputedIn("tf32", "tf32")
OF_TORCH = ComputedIn("tf32", "float32")
"""What torch's flags say unless somebody set them."""
LAST = torch.channels_last


def batch() -> Tensor:
    return tiny_inputs().float()


def older(read: Callable[[], object]) -> object:
    try:
        return read()
    except RuntimeError:
        return "refused"


def flags() -> list[object]:
    """All that torch tells of them, under newer and older names."""
    homes = (backends, backends.cudnn, backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    cpu = (backends.mkldnn.matmul, backends.mkldnn.conv)
    return [home.fp32_precision for home in (*homes, *cpu)] + [
        older(lambda: backends.cuda.matmul.allow_tf32),
        older(lambda: backends.cudnn.allow_tf32),
        older(torch.get_float32_matmul_precision),
    ]


@pytest.fixture(autouse=True)
def flags_of_torch() -> Iterator[None]:
    yield
    backends.fp32_precision = backends.cudnn.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    backends.cuda.matmul.fp32_precision = backends.mkldnn.matmul.fp32_precision = "none"
    if older(lambda: backends.cudnn.allow_tf32) is not True:
        backends.cudnn.allow_tf32 = True
    assert of_cuda() == OF_TORCH


@pytest.fixture
def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions hold their precision as they do on CUDA."""
    monkeypatch.setattr(
        "cnnviz.explanations.options.hold_precision", lambda kind, wanted: hold_precision("cuda", wanted)
    )


# The flags

USERS: dict[str, Callable[[], object]] = {
    "as torch sets them": lambda: None,
    "all exact": lambda: setattr(backends, "fp32_precision", "ieee"),
    "all in TF32": lambda: setattr(backends, "fp32_precision", "tf32"),
    "CUDA exact": lambda: setattr(backends.cudnn, "fp32_precision", "ieee"),
    "products in TF32": lambda: setattr(backends.cuda.matmul, "fp32_precision", "tf32"),
    "products in TF32, by the older name": lambda: setattr(backends.cuda.matmul, "allow_tf32", True),
    "high products": lambda: torch.set_float32_matmul_precision("high"),
    "medium products": lambda: torch.set_float32_matmul_precision("medium"),
    "exact convolutions, by the older name": lambda: setattr(backends.cudnn, "allow_tf32", False),
    "exact convolutions": lambda: setattr(backends.cudnn.conv, "fp32_precision", "ieee"),
}


@pytest.mark.parametrize("user", USERS)
def test_flags_are_set_and_put_back_whoever_set_them(user: str) -> None:
    USERS[user]()
    before, mine = flags(), Tf32Flags()
    for _ in range(2):
        mine.set("float32")
        assert of_cuda() == FLOAT32
        assert backends.cudnn.rnn.fp32_precision != "tf32"
        mine.set("tf32")
        assert (of_cuda(), backends.cudnn.rnn.fp32_precision) == (TF32, "tf32")
        mine.set(None)
        assert flags() == before


@pytest.mark.parametrize("wanted", ["float32", "tf32"])
def test_flags_that_followed_another_one_follow_it_again(wanted: Float32) -> None:
    def following() -> list[object]:
        found = []
        for place in (backends, backends.cudnn):
            for code in ("ieee", "tf32", "none"):
                place.fp32_precision = code
                found.append(flags())
        return found

    before, mine = following(), Tf32Flags()
    mine.set(wanted)
    mine.set(None)
    assert following() == before


def test_the_older_name_of_products_is_told_meanwhile() -> None:
    mine = Tf32Flags()
    for wanted, allowed in (("float32", False), ("tf32", True), ("float32", False)):
        mine.set(wanted)  # type: ignore[arg-type]
        assert backends.cuda.matmul.allow_tf32 is allowed
        assert torch.get_float32_matmul_precision() == ("high" if allowed else "highest")
    mine.set(None)


@pytest.mark.parametrize("user", ["as torch sets them", "high products", "exact convolutions, by the older name"])
def test_flags_whose_change_is_interrupted_are_put_back(user: str) -> None:
    USERS[user]()
    before, mine, line = flags(), Tf32Flags(), 1

    def change() -> None:
        for wanted in ("float32", "tf32", None):
            mine.set(wanted)  # type: ignore[arg-type]

    while interrupted(change, line, KeyboardInterrupt, lambda frame: frame.f_code.co_filename.endswith("tf32.py")):
        mine.set(None)
        assert flags() == before, line
        line += 1
    assert line > 30
    assert flags() == before


# Turns


class Noted(Tf32Flags):
    """Flags of nobody, which note what they were set to."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Float32 | None] = []

    def set(self, wanted: Float32 | None) -> None:
        if wanted != self.now:
            self.told.append(wanted)
        self.now = wanted


class Asking:
    """A thread that asks when it is told to."""

    def __init__(self, turns: PrecisionTurns):
        self.turns, self.loans = turns, []  # type: tuple[PrecisionTurns, list[Loan]]
        self.todo: list[Callable[[], None]] = []
        self.more, self.done = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            self.more.acquire()
            self.todo.pop(0)()
            self.done.release()

    def _tell(self, job: Callable[[], None]) -> None:
        self.todo.append(job)
        self.more.release()

    def enter(self, wanted: Float32 | None) -> Asking:
        def job() -> None:
            self.loans.append(Loan())
            self.turns.enter(self.loans[-1], wanted)

        self._tell(job)
        return self

    def leave(self) -> Asking:
        self._tell(lambda: self.turns.leave(self.loans.pop()))
        return self

    def goes_on(self) -> None:
        assert self.done.acquire(timeout=10)

    def waits(self) -> None:
        assert not self.done.acquire(timeout=0.03)


def asking(count: int) -> tuple[Noted, list[Asking]]:
    noted = Noted()
    turns = PrecisionTurns(noted)
    return noted, [Asking(turns) for _ in range(count)]


def test_questions_of_one_precision_are_answered_side_by_side() -> None:
    noted, (one, other) = asking(2)
    for each in (one, other):
        each.enter("tf32").goes_on()
    one.leave().goes_on()
    assert noted.told == ["tf32"]
    other.leave().goes_on()
    assert noted.told == ["tf32", None]


@pytest.mark.parametrize(("first", "second"), [("tf32", "float32"), ("tf32", None), (None, "float32")])
def test_questions_of_another_precision_wait(first: Float32 | None, second: Float32 | None) -> None:
    noted, (one, other) = asking(2)
    one.enter(first).goes_on()
    other.enter(second).waits()
    assert noted.now == first
    one.leave().goes_on()
    other.goes_on()
    assert noted.now == second
    other.leave().goes_on()
    assert noted.now is None


def test_who_comes_first_goes_first() -> None:
    noted, (one, other, third) = asking(3)
    one.enter("tf32").goes_on()
    other.enter("float32").waits()
    third.enter("tf32").waits()  # else a stream of such questions would keep the other waiting for ever
    one.leave().goes_on()
    other.goes_on()
    assert noted.now == "float32"
    other.leave().goes_on()
    third.goes_on()
    assert noted.now == "tf32"
    third.leave().goes_on()


def test_a_question_inside_of_another_changes_the_precision_and_gives_it_back() -> None:
    noted, (one,) = asking(1)
    for wanted in ("tf32", None, "float32", None):  # None takes that of the question around
        one.enter(wanted).goes_on()  # type: ignore[arg-type]
    for _ in range(4):
        one.leave().goes_on()
    assert noted.told == ["tf32", "float32", "tf32", None]


def test_questions_inside_of_others_do_not_wait_for_each_other() -> None:
    noted, (one, other) = asking(2)
    one.enter("tf32").goes_on()
    other.enter("tf32").goes_on()
    one.enter("float32").waits()
    other.enter("float32").goes_on()  # now nobody computes in TF32
    one.goes_on()
    assert noted.now == "float32"
    one.leave().waits()  # the question around goes on in TF32
    other.leave()
    for each in (one, other):
        each.goes_on()
    assert noted.now == "tf32"
    for each in (one, other):
        each.leave().goes_on()
    assert noted.told == ["tf32", "float32", "tf32", None]


def test_a_question_that_is_interrupted_while_it_waits_is_forgotten() -> None:
    noted, (one, other) = asking(2)
    one.enter("tf32").goes_on()
    turns, waiting = one.turns, Loan()

    def strike(*_: object) -> None:
        raise KeyboardInterrupt

    signal = pytest.importorskip("signal")
    former = signal.signal(signal.SIGALRM, strike)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.03)
        with pytest.raises(KeyboardInterrupt):
            turns.enter(waiting, "float32")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    turns.leave(waiting)
    other.enter("tf32").goes_on()
    for each in (one, other):
        each.leave().goes_on()
    assert noted.told == ["tf32", None]


# Questions


class Looking(nn.Module):
    """Notes what torch's flags say in its passes, forward and backward."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.head = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(3, 3)
        self.fails = fails
        self.seen: dict[str, set[str]] = {"forward": set(), "backward": set()}
        self.eval()

    def look(self, way: str) -> None:
        self.seen[way].add(str(of_cuda()))

    def forward(self, x: Tensor) -> Tensor:
        self.look("forward")
        maps = self.layer(x)
        if maps.requires_grad and torch.is_grad_enabled():
            maps.register_hook(lambda grad: self.look("backward"))
        if self.fails:
            raise RuntimeError("the device was lost")
        return self.head(maps.relu().mean((2, 3)))


ASKED: dict[str, dict[str, Any]] = {
    "gradient": {},
    "integrated_gradients": {"steps": 2},
    "guided_backprop": {},
    "occlusion": {"window": 3},
    "rise": {"masks": 4, "cells": 2},
}
BACKWARD = {"gradient", "integrated_gradients", "guided_backprop"}


@pytest.mark.usefixtures("as_on_cuda")
@pytest.mark.parametrize("method", ASKED)
@pytest.mark.parametrize(("precision", "expected"), [("float32", FLOAT32), ("tf32", TF32), (None, OF_TORCH)])
def test_all_passes_of_a_question_are_in_its_precision(method: str, precision: Any, expected: ComputedIn) -> None:
    net, before = Looking(), flags()
    explain(net, batch(), method, target=1, precision=precision, **ASKED[method])
    assert net.seen["forward"] == {str(expected)}
    assert net.seen["backward"] == ({str(expected)} if method in BACKWARD else set())
    assert flags() == before
    assert not precision_turns.turns._holds


@pytest.mark.usefixtures("as_on_cuda")
def test_metrics_ask_in_the_precision_of_the_explanation() -> None:
    net, inputs = Looking(), batch()
    answer = explain(net, inputs, "gradient", target=1, precision="float32")
    net.seen["forward"].clear()
    evaluate(answer, ["insertion", "deletion"], model=net)
    assert net.seen["forward"] == {"float32"}
    assert of_cuda() == OF_TORCH


@pytest.mark.usefixtures("as_on_cuda")
@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_flags_are_put_back_when_the_model_raises(precision: Any) -> None:
    before = flags()
    with pytest.raises(RuntimeError, match="the device was lost"):
        explain(Looking(fails=True), batch(), "gradient", target=1, precision=precision)
    assert flags() == before
    assert not precision_turns.turns._holds


@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeoutError])
def test_a_question_that_is_interrupted_gives_its_turn_back(kind: type[BaseException]) -> None:
    before, line = flags(), 1

    def where(frame: Any) -> bool:
        return str(frame.f_code.co_filename).endswith(("tf32.py", "precision_turns.py"))

    @borrows
    def ask() -> None:
        hold_precision("cuda", "float32")
        assert of_cuda() == FLOAT32

    while interrupted(ask, line, kind, where):
        assert flags() == before, line
        assert not precision_turns.turns._holds, line
        assert not precision_turns.turns._waiting, line
        line += 1
    assert line > 50


@pytest.mark.usefixtures("as_on_cuda")
def test_questions_of_several_threads_are_each_in_their_precision() -> None:
    failures: list[str] = []

    def ask(precision: Any, expected: ComputedIn) -> None:
        for _ in range(2):
            net = Looking()
            found = explain(net, batch(), "gradient", target=1, precision=precision)
            if net.seen["forward"] | net.seen["backward"] != {str(expected)} or found.options.precision != precision:
                failures.append(f"{precision}: {net.seen}")

    asked = [("float32", FLOAT32), ("tf32", TF32), (None, OF_TORCH), ("float32", FLOAT32)]
    threads = [threading.Thread(target=ask, args=each) for each in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not failures
    assert of_cuda() == OF_TORCH


@pytest.mark.usefixtures("as_on_cuda")
def test_a_question_that_a_target_asks_may_have_another_precision() -> None:
    net, other = Looking(), Looking()

    def target(output: Tensor) -> Tensor:
        explain(other, batch(), "gradient", target=1, precision="float32")
        assert of_cuda() == TF32
        return output[:, 1]

    explain(net, batch(), "gradient", target=target, precision="tf32")
    assert (net.seen["forward"], other.seen["forward"]) == ({"tf32"}, {"float32"})
    assert of_cuda() == OF_TORCH


def test_a_cpu_is_not_asked_to_wait() -> None:
    """Its questions hold nothing, and torch's flags stay."""
    net = Looking()
    explain(net, batch(), "gradient", target=1, precision="float32")
    assert net.seen["forward"] == {str(OF_TORCH)}


# What is told


@pytest.mark.parametrize(
    ("precision", "told"), [(None, "float32"), ("float32", "float32"), ("tf32", "float32"), ("bfloat16", "bfloat16")]
)
def test_an_explanation_tells_what_it_was_computed_in(precision: Any, told: str, tmp_path: Path) -> None:
    net, inputs = Looking(), batch()
    answer = explain(net, inputs, "grad_cam", layer="layer", target=1, precision=precision)
    assert (answer.options.precision, answer.computed_in, answer[0].computed_in) == (precision, told, told)
    if told == "float32":  # a CPU has no TF32: the same values, and it says so
        assert torch.equal(answer.values, explain(net, inputs, "grad_cam", layer="layer", target=1).values)
    (file,) = answer.save(tmp_path / "kept.safetensors")
    kept = Explanation.load(file)
    assert (kept.options, kept.computed_in) == (answer.options, told)


def test_a_precision_of_the_networks_own_or_of_the_users_is_told() -> None:
    net, inputs = Looking(), batch()
    with torch.autocast("cpu", torch.bfloat16):
        assert explain(net, inputs, "gradient", target=1).computed_in == "bfloat16"
    assert explain(net.double(), inputs.double(), "gradient", target=1).computed_in == "float64"
    assert explain(lambda x: x.mean((2, 3)), inputs, "occlusion", window=3, target=1).computed_in is None


def test_float32_is_not_what_an_autocast_around_says() -> None:
    net, inputs = Looking(), batch()
    expected = explain(net, inputs, "gradient", target=1).values
    with torch.autocast("cpu", torch.bfloat16):
        found = explain(net, inputs, "gradient", target=1, precision="float32")
        assert torch.is_autocast_enabled("cpu")
    assert found.computed_in == "float32"
    assert torch.equal(found.values, expected)


def test_what_flags_of_torch_say_is_told() -> None:
    assert str(of_cuda()) == "tf32 in convolutions, float32 in matrix products"
    inputs = batch()
    torch.set_float32_matmul_precision("medium")
    assert str(of_cuda()) == "tf32"
    assert str(computed_in(inputs)) == "float32 in convolutions, bfloat16 in matrix products"  # on a CPU
    assert str(computed_in(inputs, torch.float16)) == "float16"


def test_in_files_of_earlier_versions_float32_was_no_wish(tmp_path: Path) -> None:
    """It was the default, and left torch's flags as they were."""
    answer = explain(Looking(), batch(), "gradient", target=1, precision="float32")
    (file,) = answer.save(tmp_path / "kept.safetensors")
    assert Explanation.load(file).options.precision == "float32"
    with safe_open(file, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, not a mapping
        about = json.loads(opened.metadata()["cnnviz"])
    del about["computed_in"]
    save_file(tensors, file, {"cnnviz": json.dumps(about)})
    earlier = Explanation.load(file)
    assert (earlier.options.precision, earlier.computed_in) == (None, None)


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_float32_of_a_network_in_another_precision_is_refused(precision: Any) -> None:
    with pytest.raises(ValueError, match=f"precision='{precision}' is for models and inputs in float32, and here is"):
        explain(Looking().double(), batch().double(), "gradient", target=1, precision=precision)
    with pytest.raises(ValueError, match="a black box is called as it is; leave precision, fold and compile out"):
        explain(lambda x: x.mean((2, 3)), batch(), "occlusion", window=3, target=1, precision=precision)


def test_ten_bits_are_allowed_for_where_torch_refuses_to_tell_by_the_older_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backends.cudnn.conv.fp32_precision = "ieee"  # of recurrent networks it is TF32 still
    assert older(lambda: backends.cudnn.allow_tf32) == "refused"
    found, plain, score = torch.tensor([0.5]), torch.tensor([0.502]), torch.tensor([1.0])
    monkeypatch.setattr(Tensor, "is_cuda", True)
    assert agrees(found, plain, score=score) is False
    backends.cuda.matmul.fp32_precision = "tf32"
    assert agrees(found, plain, score=score) is True


# Memory order and batch norms on CUDA

LARGE, SMALL = LARGE_ON_CUDA, LARGE_ON_CUDA - 1


@pytest.mark.parametrize(
    ("device", "computed", "graph", "places", "layout", "norms"),
    [
        ("cuda", "tf32", False, LARGE, LAST, True),
        ("cuda", "bfloat16", False, LARGE, LAST, True),
        ("cuda", "float16", False, LARGE, LAST, True),
        ("cuda", "float32", False, LARGE, ORDINARY, False),  # there are no measurements, and no tensor cores
        ("cuda", "float64", False, LARGE, ORDINARY, False),
        ("cuda", "tf32", True, LARGE, ORDINARY, True),
        ("cuda", "bfloat16", True, LARGE, ORDINARY, True),
        ("cuda", "float32", True, LARGE, ORDINARY, True),
        ("cuda", "tf32", False, SMALL, ORDINARY, False),
        ("cuda", "tf32", True, SMALL, ORDINARY, False),
        ("cpu", "float32", True, 10_000, LAST, True),
        ("cpu", "float32", False, 10_000, LAST, True),
        ("cpu", "float32", True, 3_000, ORDINARY, False),  # many weights on few places
        ("cpu", "bfloat16", True, 3_000, LAST, True),
        ("mps", "float32", False, LARGE, ORDINARY, False),
    ],
)
def test_the_memory_order_is_what_was_measured(
    device: str, computed: str, graph: bool, places: int, layout: torch.memory_format, norms: bool
) -> None:
    kind = PassKind(device, computed, graph, places, weights=1_000_000)
    assert (kind.layout(), kind.scales_norms()) == (layout, norms)
    assert kind.special() is (layout is not ORDINARY or norms)
    assert kind._replace(weights=0).layout() is ORDINARY


class Normed(nn.Module):
    """Two convolutions with a batch norm each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.layer, self.again = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        for norm in (self.norm, self.again):
            for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                nn.init.uniform_(values, 0.5, 1.5)  # type: ignore[arg-type]
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.again(self.layer(self.norm(self.first(x)).relu())).relu().mean((2, 3)))


@pytest.mark.parametrize(
    ("method", "settings", "graphs"),
    [
        ("gradient", {}, {True}),
        ("guided_backprop", {}, {True}),
        ("integrated_gradients", {"steps": 2}, {True, False}),  # its score is asked by itself
        ("grad_cam", {"layer": "again"}, {False}),  # a graph from the layer on, behind which nothing is convolved
        ("occlusion", {"window": 32}, {False}),
        ("fullgrad", {}, set()),  # finds biases by torch's own operations
    ],
)
def test_passes_are_computed_as_the_kind_of_pass_says(
    method: str, settings: dict[str, Any], graphs: set[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU that is taken for a large GPU gives the same values."""
    inputs = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    net = Normed()
    monkeypatch.setattr(layouts, "SMALLEST", 10**9)
    expected = explain(net, inputs, method, target=1, **settings).values
    kinds: list[PassKind] = []
    orders: set[bool] = set()

    def taken_for_a_gpu(model: nn.Module, inputs: Tensor, precision: Any = None, graph: bool = False) -> PassKind:
        kinds.append(PassKind("cuda", "tf32", graph, LARGE, weights=1_000))
        return kinds[-1]

    monkeypatch.setattr("cnnviz.run.forward_passes.kind_of_pass", taken_for_a_gpu)
    net.layer.register_forward_pre_hook(lambda module, args: orders.add(args[0].is_contiguous(memory_format=LAST)))
    found = explain(net, inputs, method, target=1, **settings).values
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert {kind.graph for kind in kinds} == graphs
    assert (True in orders) is (False in graphs)
    assert found.is_contiguous()


def test_a_batch_norm_is_one_multiplication_in_the_ordinary_order(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, net = torch.rand(1, 3, 64, 64), Normed()
    calls: list[bool] = []
    kept = torch.addcmul

    def counted(*args: Any, **kwargs: Any) -> Tensor:
        if args[1].ndim == 4:  # of maps, not of a factor for each channel
            calls.append(args[1].is_contiguous())
        return kept(*args, **kwargs)

    monkeypatch.setattr(torch, "addcmul", counted)
    for places, count in ((SMALL, 0), (LARGE, 2)):
        kind = PassKind("cuda", "float32", True, places, weights=1_000)
        monkeypatch.setattr("cnnviz.run.forward_passes.kind_of_pass", lambda *args, kind=kind, **kwargs: kind)
        explain(net, inputs, "gradient", target=1)
        assert calls == [True] * count


def test_what_is_known_of_a_pass() -> None:
    net, inputs = Normed(), torch.rand(2, 3, 64, 64)
    if not layouts._has_onednn():
        pytest.skip("channels last is for oneDNN on x86")
    known = layouts.kind_of_pass(net, inputs, torch.bfloat16, graph=True)
    assert known == PassKind("cpu", "bfloat16", True, 2 * 64 * 64, 3 * 4 * 9 + 4 * 4 * 9)
    for other in (inputs[:, :, :32], inputs.double(), inputs[..., 0], inputs.to("meta")):
        assert layouts.kind_of_pass(net, other) is None
