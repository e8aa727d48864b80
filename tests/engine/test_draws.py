"""Draws are Philox's words, as a slow reference in Python's numbers has them, whatever they are drawn beside."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, product
from typing import Any

import numpy as np
import pytest
import torch
from nets import FlatteningNet, tiny_inputs
from scipy import stats
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cnnviz import Run
from cnnviz.engine import draws
from cnnviz.engine.draws import philox
from cnnviz.feature_visualization import RandomNumbers
from cnnviz.formulas import backgrounds, between, noisy

KNOWN = [  # Random123's known answers: counter, key, words
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
FLOATS = {torch.float16: 11, torch.bfloat16: 8, torch.float32: 24, torch.float64: 53}
SEEDS = (0, 7, -1, 2**63 + 5)
NUMBERS: list[tuple[int, ...]] = [(), (0,), (3,), (2**40 + 1,), (5, 3), (1, 2, 2**33)]
CALLS: dict[str, Callable[[RandomNumbers, int], Tensor]] = {
    "uniform": lambda numbers, size: numbers.uniform((size,)),
    "uniform64": lambda numbers, size: numbers.uniform((size,), torch.float64),
    "normal": lambda numbers, size: numbers.normal((size,)),
    "normal64": lambda numbers, size: numbers.normal((size,), torch.float64),
    "integers": lambda numbers, size: numbers.integers(-3, 1000, (size,)),
    "permutation": lambda numbers, size: numbers.permutation(size),
    "choice": lambda numbers, size: numbers.choice([1, 0, 2.5, 3], (size,)),
}


# The slow reference, in Python's whole numbers


def slow_block(counter: list[int], key: tuple[int, int]) -> list[int]:
    """A block of Philox4x32-10 as the paper writes it: a multiplication gives a high and a low word."""
    left, right = key
    for turn in range(10):
        (high, low), (up, down) = divmod(0xD2511F53 * counter[0], 2**32), divmod(0xCD9E8D57 * counter[2], 2**32)
        keys = (left + turn * 0x9E3779B9) % 2**32, (right + turn * 0xBB67AE85) % 2**32
        counter = [up ^ counter[1] ^ keys[0], down, high ^ counter[3] ^ keys[1], low]
    return counter


def slow_words(seed: int, numbers: tuple[int, ...], call: int = 0) -> Iterator[int]:
    """The words of a call of a draw: the last number counts, those before it give the key."""
    key = seed % 2**64 % 2**32, seed % 2**64 // 2**32
    for number in numbers[:-1]:
        first, second, *_ = slow_block([0, 2**32 - 1, number % 2**32, number // 2**32], key)
        key = first, second
    last = numbers[-1] if numbers else 2**62
    for block in count():
        yield from slow_block([block, call, last % 2**32, last // 2**32], key)


def slow_fractions(seed: int, numbers: tuple[int, ...], call: int = 0) -> Iterator[tuple[int, int]]:
    """For each number its first 32 bits, and all 53."""
    further = slow_words(seed, numbers, call + 2**31)
    for word, rest in zip(slow_words(seed, numbers, call), further, strict=True):
        yield word, word * 2**21 + rest // 2**11


def first_of(size: int, values: Iterator[Any]) -> list[Any]:
    return [next(values) for _ in range(size)]


def slow_normals(seed: int, numbers: tuple[int, ...], size: int, wide: bool) -> list[float]:
    fractions = slow_fractions(seed, numbers)
    normals: list[float] = []
    while len(normals) < size:
        radial, turning = next(fractions)[wide], next(fractions)[wide]
        steps = 2**53 if wide else 2**32
        radius, angle = math.sqrt(-2 * math.log((radial + 0.5) / steps)), 2 * math.pi * turning / steps
        normals += [radius * math.cos(angle), radius * math.sin(angle)]
    return normals[:size]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_has_its_known_answers(counter: str, key: str, words: str) -> None:
    given = [int(word, 16) for word in counter.split()]
    low, high = (int(word, 16) for word in key.split())
    expected = [int(word, 16) for word in words.split()]
    assert list(philox(tuple(given), low | high << 32)) == expected  # type: ignore[type-var]
    tensors = philox(tuple(torch.tensor([0, word]) for word in given), low | high << 32)  # type: ignore[type-var]
    assert [int(each[1]) for each in tensors] == expected
    assert slow_block(given, (low, high)) == expected


def asked(numbers: tuple[int, ...], seed: int) -> RandomNumbers:
    return RandomNumbers(seed, *numbers)


@pytest.mark.parametrize("numbers", NUMBERS, ids=repr)
@pytest.mark.parametrize("seed", SEEDS)
def test_numbers_are_those_of_the_slow_reference(seed: int, numbers: tuple[int, ...]) -> None:
    for size in (0, 1, 6, 9):
        words = first_of(size, slow_words(seed, numbers))
        fractions = [wide for _, wide in first_of(size, slow_fractions(seed, numbers))]
        for dtype, bits in FLOATS.items():
            expected = [(wide >> 53 - bits) / 2**bits for wide in fractions]
            found = asked(numbers, seed).uniform((size,), dtype)
            assert found.dtype == dtype
            assert found.tolist() == expected
        assert asked(numbers, seed).floats(size) == [wide / 2**53 for wide in fractions]
        for low, high in ((0, 1), (-3, 4), (5, 5 + 2**31)):
            expected = [low + word * (high - low) // 2**32 for word in words]
            assert asked(numbers, seed).integers(low, high, (size,)).tolist() == expected
        order = sorted(range(size), key=lambda place: (words[place], place))
        assert asked(numbers, seed).permutation(size).tolist() == order
        ends = [0.125, 0.125, 0.5]
        chosen = [sum(wide / 2**53 >= end for end in ends) for wide in fractions]
        assert asked(numbers, seed).choice([1, 0, 3, 4], (size,)).tolist() == chosen
        normals = torch.tensor(slow_normals(seed, numbers, size, wide=True), dtype=torch.float64)
        torch.testing.assert_close(asked(numbers, seed).normal((size,), torch.float64), normals, rtol=0, atol=1e-14)
        narrow = torch.tensor(slow_normals(seed, numbers, size, wide=False), dtype=torch.float64)
        torch.testing.assert_close(asked(numbers, seed).normal((size,)), narrow.float(), rtol=2e-7, atol=1e-12)
        for half in (torch.float16, torch.bfloat16):
            assert torch.equal(asked(numbers, seed).normal((size,), half), narrow.float().to(half))


# What numbers do not depend on


@pytest.mark.parametrize("call", CALLS)
def test_a_draw_is_the_same_beside_any_others(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = torch.stack([CALLS[call](RandomNumbers(4, 9, number), 13) for number in range(2, 8)])
    for blocks in (2**14, 9, 3, 1):  # several draws at once, or a draw in several parts
        monkeypatch.setattr(draws, "CPU_BLOCKS", blocks)
        assert torch.equal(CALLS[call](RandomNumbers(4, 9, range(2, 8)), 13), alone)
        parts = [CALLS[call](RandomNumbers(4, 9, range(*ends)), 13) for ends in ((2, 3), (3, 8))]
        assert torch.equal(torch.cat(parts), alone)
    assert torch.equal(CALLS[call](RandomNumbers(4, 9, range(7, 1, -2)), 13), alone[range(5, -1, -2)])
    if call != "permutation":
        assert torch.equal(CALLS[call](RandomNumbers(4, 9, range(2, 8)), 6), alone[:, :6])


def test_a_wider_type_has_the_same_numbers_with_more_bits() -> None:
    for kind in ("uniform", "normal"):
        wide = getattr(RandomNumbers(1, 2), kind)((3, 50), torch.float64)
        single = getattr(RandomNumbers(1, 2), kind)((3, 50))
        torch.testing.assert_close(single.double(), wide, rtol=0, atol=1e-6)
        for half, step in ((torch.float16, 2e-3), (torch.bfloat16, 1.6e-2)):
            torch.testing.assert_close(
                getattr(RandomNumbers(1, 2), kind)((3, 50), half).double(), wide, rtol=0, atol=step
            )
    assert torch.equal(RandomNumbers(1).normal((20,), torch.float16), RandomNumbers(1).normal((20,)).half())


def test_a_stream_goes_on_and_begins_anew() -> None:
    stream = RandomNumbers(3, 1)
    first, second = stream.uniform((6,), torch.float64), stream.uniform((6,), torch.float64)
    assert not set(first.tolist()) & set(second.tolist())
    assert second.tolist() == [wide / 2**53 for _, wide in first_of(6, slow_fractions(3, (1,), call=1))]
    assert stream.floats(2) == [wide / 2**53 for _, wide in first_of(2, slow_fractions(3, (1,), call=2))]
    assert torch.equal(RandomNumbers(3, 1).uniform((6,), torch.float64), first)


def test_shapes() -> None:
    for numbers, more in (((4,), ()), ((4, range(3)), (3,)), ((range(0),), (0,))):
        stream = RandomNumbers(0, *numbers)
        for shape in ((), (0,), (5,), (2, 3, 4), torch.Size([2, 2])):
            for found in (
                stream.uniform(shape),
                stream.normal(shape),
                stream.integers(0, 5, shape),
                stream.choice([1, 2], shape),
            ):
                assert found.shape == (*more, *shape)
        assert stream.permutation(6).shape == (*more, 6)


def test_the_state_of_torch_is_no_matter_and_stays() -> None:
    expected = [call(RandomNumbers(2, 8), 11) for call in CALLS.values()]
    before = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            found = [call(RandomNumbers(2, 8), 11) for call in CALLS.values()]
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


class Waits(TorchDispatchMode):
    """Fails where an operation waits for the device, or copies from one to another."""

    WAITING = (
        "_local_scalar_dense",
        "nonzero",
        "is_nonzero",
        "equal",
        "_unique",
        "unique",
        "lift_fresh",
        "masked_select",
    )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = [each for each in args[1] if each is not None and each.dtype == torch.bool] if name == "index" else []
        moved = name in ("_to_copy", "_copy_from") and (kwargs or {}).get("device") is not None
        waits = masks or moved or any(map(name.startswith, self.WAITING))
        assert not waits, name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("call", CALLS)
def test_no_draw_waits_for_the_device(call: str) -> None:
    with Waits():
        for numbers in ((), (3,), (1, range(5))):
            CALLS[call](RandomNumbers(0, *numbers), 10)
    with pytest.raises(AssertionError, match="_local_scalar_dense"), Waits():
        torch.ones(()).item()


def test_numbers_for_python_are_made_without_tensors() -> None:
    class Nothing(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            raise AssertionError(func)

    with Nothing():
        assert len(RandomNumbers(3, 1).floats(5)) == 5


def test_the_draws_of_methods_wait_for_no_device() -> None:
    from cnnviz_plugins.attributions.rise import Masks
    from cnnviz_plugins.attributions.shapley import _ranks

    inputs = tiny_inputs()
    run = Run(FlatteningNet(), inputs)
    ways = between(backgrounds(torch.zeros(3, 2, 5, 6)), 7, "even")
    with Waits():
        ways._which(run, 0, 3)
        ways._parts(run, 0, 3)
        Masks(3, 0.5).draw(run, 0, 4)
        _ranks(run, 5, 4)
        noisy(5).draw(run, 1, 4)


# Refusals


def refused(ask: Callable[[], Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        ask()


def test_what_cannot_be_drawn_is_refused() -> None:
    one = RandomNumbers(0)
    refused(lambda: RandomNumbers(0, -1), ValueError, r"the number of a draw is -1; it is from 0 to 2\*\*62 - 1")
    refused(lambda: RandomNumbers(0, 2**62), ValueError, "the number of a draw is 4611686018427387904;")
    refused(lambda: RandomNumbers(0, -2, 1), ValueError, "the number of a draw is -2;")
    refused(lambda: RandomNumbers(0, range(-1, 4)), ValueError, "the number of a draw is -1;")
    refused(lambda: RandomNumbers(0, range(2), 1), ValueError, r"only the last may be a range, and range\(0, 2\) comes")
    refused(lambda: RandomNumbers(0, 0.5), TypeError, "'float' object cannot be interpreted as an integer")  # type: ignore[arg-type]
    refused(lambda: RandomNumbers(2**64), ValueError, "the seed 18446744073709551616 is beyond 64 bits")
    refused(
        lambda: RandomNumbers(0, range(2)).floats(1), ValueError, r"range\(0, 2\) are several draws; ask for Python's"
    )
    refused(lambda: one.integers(3, 3), ValueError, "from 3 to less than 3 there are 0 whole numbers; draw from 1 to 2")
    refused(lambda: one.integers(0, 2**31 + 1), ValueError, "there are 2147483649 whole numbers")
    refused(
        lambda: one.uniform((2,), torch.int64), TypeError, "there are no random numbers of torch.int64; draw float32"
    )
    refused(lambda: one.normal((2,), torch.complex64), TypeError, "there are no random numbers of torch.complex64")
    for weights in ([], [0, 0.0], [1, -1], [1, math.nan], [1, math.inf]):
        refused(lambda weights=weights: one.choice(weights), ValueError, "are no probabilities; give 0 or more")  # type: ignore[misc]


# Quality. Seeds are fixed, so nothing here fails by chance; limits are those of a probability of 1e-4 or less


def as_words(numbers: RandomNumbers, size: int) -> np.ndarray:
    return numbers.integers(0, 2**31, (size,)).numpy()


@pytest.mark.parametrize("seed", [0, 1, 2**63])
def test_numbers_are_uniform_and_normal(seed: int) -> None:
    uniform = RandomNumbers(seed, 0).uniform((100_000,), torch.float64).numpy()
    assert stats.kstest(uniform, "uniform").pvalue > 1e-4
    counts = np.bincount((uniform * 1024).astype(int), minlength=1024)
    assert 1e-4 < stats.chisquare(counts).pvalue < 1 - 1e-4
    normal = RandomNumbers(seed, 1).normal((100_000,)).double().numpy()
    assert stats.kstest(normal, "norm").pvalue > 1e-4
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((normal**power).mean() - moment) < 4 * math.sqrt(variance / 1e5), power
    bits = (as_words(RandomNumbers(seed, 2), 20_000)[:, None] >> np.arange(31)) & 1
    assert np.abs(bits.mean(0) - 0.5).max() < 4.5 * 0.5 / math.sqrt(20_000)
    follows = np.corrcoef(uniform[:-1], uniform[1:])[0, 1]
    assert abs(follows) < 4 / math.sqrt(1e5)


def test_neighbouring_seeds_draws_and_calls_have_nothing_in_common() -> None:
    size = 4_000
    streams = [
        RandomNumbers(seed, *numbers)
        for seed, numbers in product((0, 1, 2, -1), ((), (0,), (1,), (0, 0), (0, 1), (1, 0)))
    ]
    values = [stream.normal((size,), torch.float64) for stream in streams for _ in range(2)]
    together = np.corrcoef(torch.stack(values).numpy()) - np.eye(len(values))
    assert np.abs(together).max() < 5 / math.sqrt(size)  # of a thousand pairs
    words = np.stack([as_words(RandomNumbers(seed, 3), 500) for seed in range(64)])
    changed = [each.bit_count() for each in (words[1:] ^ words[:-1]).flatten().tolist()]
    assert abs(np.mean(changed) - 15.5) < 4.5 * math.sqrt(31 / 4 / len(changed))  # half of the bits, whatever the seeds
    assert len(np.unique(words)) > 0.999 * words.size


def test_orders_choices_and_whole_numbers_are_as_likely_as_they_should_be() -> None:
    many = range(6_000)
    orders = RandomNumbers(5, many).permutation(4) @ torch.tensor([64, 16, 4, 1])
    _, counts = orders.unique(return_counts=True)
    assert len(counts) == 24
    assert 1e-4 < stats.chisquare(counts.numpy()).pvalue < 1 - 1e-4
    for places in zip(*RandomNumbers(5, many).permutation(50)[:, :2].T.tolist(), strict=True):
        assert places[0] != places[1]
    chosen = RandomNumbers(6, many).choice([1, 0, 2, 5, 0]).bincount(minlength=5).numpy()
    assert chosen[1] == chosen[4] == 0
    assert stats.chisquare(chosen[[0, 2, 3]], np.array([1, 2, 5]) / 8 * len(many)).pvalue > 1e-4
    thrown = RandomNumbers(7).integers(1, 7, (6_000,)).bincount(minlength=7).numpy()
    assert thrown[0] == 0
    assert 1e-4 < stats.chisquare(thrown[1:]).pvalue < 1 - 1e-4


# Of a run


def test_a_run_draws_by_its_seed_and_number() -> None:
    from cnnviz.run.options import RunOptions

    run = Run(FlatteningNet(), tiny_inputs(), options=RunOptions(seed=11))
    for numbers in ((), (3,), (1, range(2, 4))):
        assert torch.equal(run.draws(*numbers).uniform((9,)), RandomNumbers(11, *numbers).uniform((9,)))


@pytest.mark.parametrize("spread", ["random", "even"])
def test_places_between_baselines_are_those_drawn_by_hand(spread: Any) -> None:
    run, known = (
        Run(FlatteningNet(), tiny_inputs()),
        torch.arange(1.0, 4.0).double().view(3, 1, 1, 1).expand(3, 2, 5, 6),
    )
    begins, points = between(backgrounds(known), 7, spread).draw(run, 0, 7)
    chance = slow_fractions(0, (1, 3, 0))
    order = sorted(range(3), key=[next(chance)[1] for _ in range(3)].__getitem__)
    for number in range(7):
        first, second = (next(slow_fractions(0, (1, part, number)))[1] / 2**53 for part in (1, 2))
        which = int(first * 3)
        if spread == "even":
            turn, place = divmod(number, 3)
            which, second = order[place], (turn + second) / (3 if place == 0 else 2)
        assert float(begins[number].mean()) == which + 1
        expected = which + 1 + second * (run.inputs - which - 1)
        torch.testing.assert_close(points[number], expected)


@contextmanager
def noted() -> Iterator[set[int]]:
    met: set[int] = set()
    token = draws.seeds_met.set(met)
    try:
        yield met
    finally:
        draws.seeds_met.reset(token)


def test_seeds_are_noted_for_who_checks_a_method() -> None:
    with noted() as met:
        RandomNumbers(3, 1)
        RandomNumbers(-4)
    RandomNumbers(5)
    assert met == {3, -4}
