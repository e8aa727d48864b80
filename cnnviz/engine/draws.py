"""Random numbers that one seed gives alike on every device, by Philox4x32-10.

It is counter-based (Salmon et al., 2011, doi:10.1145/2063384.2063405): four words of 32 bits are a function of a key,
here the seed, and of a counter, here the number of the draw, of the call within it, and of the block of four words. So
each draw is made without those before it. The function is made of operations on int64, which have the same bits on
every device: products wrap modulo 2**64. Nothing waits for the device: counters are made on it, and a key is Python's.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from itertools import accumulate
from typing import TypeVar

import torch
from torch import Tensor

from cnnviz.engine.validation import checked_seed

Word = TypeVar("Word", int, Tensor)
Words = tuple[Tensor, ...]

MASK = 2**32 - 1  # of one word
ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
KEY_STEPS = 0x9E3779B9, 0xBB67AE85
UNNUMBERED = 2**62  # the draw without a number; numbers are below it
FOLDING = MASK  # the call whose words are the key of further numbers; nothing is called so often
INDEX_BITS = 31  # of a permutation's places; beside a word they fill the positive half of int64
MORE_BITS = 2**31  # added to a call: the words that follow the first 32 bits of its numbers
BITS = {torch.float16: 11, torch.bfloat16: 8, torch.float32: 24, torch.float64: 53}  # from 1/2 to 1, and so below
CPU_BLOCKS = 2**14  # at once: tensors of so many words stay in the cache
DEVICE_BLOCKS = 2**20  # at once: 4 million numbers are made in some 100 MiB, in less time than it takes to ask

seeds_met: ContextVar[set[int] | None] = ContextVar("seeds_met", default=None)
"""Where the seeds of all random numbers are noted, for who checks a method."""


def philox(counter: tuple[Word, Word, Word, Word], key: int) -> tuple[Word, Word, Word, Word]:
    """Four random words for a counter of four words and a key of 64 bits: Philox4x32-10.

    Counters are Python's whole numbers, or int64 tensors, which are broadcast; words are from 0 to 2**32 - 1.
    """
    a, b, c, d = counter
    low, high = key & MASK, key >> 32
    for _ in range(ROUNDS):
        left, right = a * MULTIPLIERS[0], c * MULTIPLIERS[1]
        a, c = (right >> 32) ^ b, (left >> 32) ^ d  # new tensors, so that the rest is done in place
        a ^= low
        c ^= high
        a &= MASK  # the shift of a negative number leaves ones above the word, and `b` has more than a word too
        c &= MASK
        b, d = right, left
        low, high = (low + KEY_STEPS[0]) & MASK, (high + KEY_STEPS[1]) & MASK
    return a, b & MASK, c, d & MASK


class RandomNumbers:
    """The random numbers of one draw: the same for the same seed and number, on every device.

    They are a stream: each call gives further ones. Whole, uniform and ordered numbers have equal bits on all devices;
    normal ones are computed in float64 and rounded, and may differ by what the devices' logarithms and cosines do. A
    wider type has the same numbers with more bits. A shorter shape of one dimension has the beginning of a longer one.

    Args:
        seed: a whole number of 64 bits.
        numbers: of the draw, each from 0 to 2**62 - 1. Draws with other numbers are independent, and so is the one
            without a number. The last may be a ``range``: tensors then have a first dimension, one draw after another.
        device: where tensors are made.

    Raises:
        TypeError: for what is no whole number.
        ValueError: for a seed or a number beyond that.
    """

    def __init__(self, seed: int, *numbers: int | range, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self._key, self._calls = checked_seed(seed) % 2**64, 0
        for number in numbers[:-1]:
            low, high, _, _ = philox((0, FOLDING, *_two_words(_checked(number))), self._key)
            self._key = low | high << 32
        self._several, self._numbers = _range(numbers[-1] if numbers else None)
        if (met := seeds_met.get()) is not None:
            met.add(seed)

    def uniform(self, shape: Sequence[int] = (), dtype: torch.dtype = torch.float32) -> Tensor:
        """Numbers of any shape from 0 to less than 1, multiples of 2**-24 in float32, of 2**-53 in float64.

        Raises TypeError for a type that is not floating point.
        """
        bits = _bits(dtype)

        def fractions(words: Words, of: int) -> Iterator[Tensor]:
            return ((word >> of - bits).to(dtype).mul_(2.0**-bits) for word in words)

        return self._filled(shape, dtype, fractions)

    def normal(self, shape: Sequence[int] = (), dtype: torch.dtype = torch.float32) -> Tensor:
        """Numbers of any shape, with mean 0 and standard deviation 1 (Box & Muller, 1958).

        Raises TypeError for a type that is not floating point.
        """
        wide = torch.float64 if _bits(dtype) == 53 else torch.float32

        def pairs(words: Words, of: int) -> Iterator[Tensor]:
            fractions = [word.to(torch.float64) for word in words]
            for first, second in (fractions[:2], fractions[2:]):
                radius = first.add_(0.5).mul_(2.0**-of).log_().mul_(-2).sqrt_()  # never the logarithm of 0
                angle = second.mul_(2 * math.pi * 2.0**-of)
                yield from (angle.cos().mul_(radius), angle.sin_().mul_(radius))

        return self._filled(shape, wide, pairs, apart=True).to(dtype)

    def integers(self, low: int, high: int, shape: Sequence[int] = ()) -> Tensor:
        """Whole numbers of any shape from ``low`` to ``high`` - 1, int64; each one's probability is exact to 2**-32.

        Raises ValueError where there are none, or more than 2**31.
        """
        span = high - low
        if not 0 < span <= 2**INDEX_BITS:
            raise ValueError(f"from {low} to less than {high} there are {span} whole numbers; draw from 1 to 2**31")
        return self._filled(shape, torch.int64, lambda words, of: ((word * span >> of) + low for word in words))

    def permutation(self, count: int) -> Tensor:
        """The numbers from 0 to ``count`` - 1 in random order, int64 (count,)."""
        keys = self._filled((count,), torch.int64, lambda words, of: (word << INDEX_BITS for word in words))
        # where words are equal, places decide: no two keys are equal, so that every device sorts them alike
        keys += torch.arange(count, device=self.device)
        return keys.sort(-1).values.bitwise_and_(2**INDEX_BITS - 1)

    def choice(self, weights: Sequence[float], shape: Sequence[int] = ()) -> Tensor:
        """Indices of ``weights`` in any shape, int64, each as likely as its share of their sum.

        Raises ValueError for weights that are negative or not finite, and where none is above 0.
        """
        ends = list(accumulate(weights, initial=0.0))
        if not (all(weight >= 0 for weight in weights) and 0 < ends[-1] < math.inf):
            raise ValueError(f"weights={list(weights)} are no probabilities; give 0 or more, and one of them above 0")
        drawn = self.uniform(shape, torch.float64)
        chosen = torch.zeros_like(drawn, dtype=torch.int64)
        for end in ends[1:-1]:  # number by number: to copy them to the device would be to wait for it
            chosen += drawn >= end / ends[-1]
        return chosen

    def floats(self, count: int) -> list[float]:
        """Uniform numbers for Python, which wait for no device: those of ``uniform((count,), torch.float64)``.

        Raises ValueError for a range of draws.
        """
        if self._several:
            raise ValueError(f"{self._numbers} are several draws; ask for Python's numbers of one after the other")
        drawn: list[float] = []
        call, number = self._call(), _two_words(self._numbers[0])
        for block in range(-(-count // 4)):
            words = (philox((block, part, *number), self._key) for part in (call, call + MORE_BITS))
            drawn += [((first << 21) + (second >> 11)) * 2.0**-53 for first, second in zip(*words, strict=True)]
        return drawn[:count]

    def _call(self) -> int:
        """The number of this call."""
        self._calls += 1
        return self._calls - 1

    def _filled(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        values: Callable[[Words, int], Iterable[Tensor]],
        apart: bool = False,
    ) -> Tensor:
        """The four tensors that ``values`` makes of each block's four words and the number of their bits, in one.

        ``apart`` makes each draw by itself on a CPU, where a logarithm may round by its place in a tensor: so a draw
        does not depend on which others are made with it.
        """
        numbers, size, call, on_cpu = self._numbers, math.prod(shape), self._call(), self.device.type == "cpu"
        blocks, at_once = -(-size // 4), CPU_BLOCKS if on_cpu else DEVICE_BLOCKS
        draws = 1 if apart and on_cpu else max(1, at_once // max(1, blocks))
        made = torch.empty(len(numbers), blocks, 4, dtype=dtype, device=self.device)
        for first in range(0, len(numbers), draws):
            for begin in range(0, blocks, at_once):
                part = made[first : first + draws, begin : begin + at_once]
                counted = numbers[first : first + draws], range(begin, begin + part.shape[1])
                words, bits = self._words(call, *counted), 32
                if dtype == torch.float64:
                    more, bits = self._words(call + MORE_BITS, *counted), 53
                    words = tuple((word << 21).add_(rest >> 11) for word, rest in zip(words, more, strict=True))
                for place, each in enumerate(values(words, bits)):
                    part[..., place] = each
        return made.flatten(1)[:, :size].reshape((len(numbers), *shape) if self._several else tuple(shape))

    def _words(self, call: int, numbers: range, blocks: range) -> Words:
        """The words of a call of these draws in these blocks, (draws, blocks) each."""
        draw, block = (torch.arange(each.start, each.stop, each.step, device=self.device) for each in (numbers, blocks))
        counter = block[None], block.new_full((1, 1), call), (draw & MASK)[:, None], (draw >> 32)[:, None]
        return philox(counter, self._key)


def _bits(dtype: torch.dtype) -> int:
    """How many bits a number between 1/2 and 1 has. Raises TypeError where it has none."""
    if dtype not in BITS:
        raise TypeError(f"there are no random numbers of {dtype}; draw float32 or float64, and convert them")
    return BITS[dtype]


def _range(last: int | range | None) -> tuple[bool, range]:
    """Whether these are several draws, and their numbers. Raises ValueError for one that is out of range."""
    if isinstance(last, range):
        for number in (*last[:1], *last[-1:]):
            _checked(number)
        return True, last
    number = UNNUMBERED if last is None else _checked(last)
    return False, range(number, number + 1)


def _checked(number: int | range) -> int:
    """The number of a draw. Raises ValueError for one that is out of range."""
    if isinstance(number, range):
        raise ValueError(f"of the numbers of a draw only the last may be a range, and {number} comes before")
    if not 0 <= (number := operator.index(number)) < UNNUMBERED:
        raise ValueError(f"the number of a draw is {number}; it is from 0 to 2**62 - 1")
    return number


def _two_words(number: int) -> tuple[int, int]:
    """The low and the high word of the number of a draw."""
    return number & MASK, number >> 32
