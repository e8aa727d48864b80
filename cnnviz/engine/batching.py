"""Variants in chunks: as many at once as a device takes, in chunks of equal size, halved when memory runs out."""

from __future__ import annotations

from collections.abc import Callable

import torch

from cnnviz.engine.meter import stage


class OneByOne(Exception):
    """Raised by a step whose elements must not be taken together."""


def even(count: int, fitting: int) -> int:
    """The size of chunks, at most ``fitting``, that share out ``count`` elements as evenly as they can.

    Chunks of one size let a device run the same kernels, and a compiler or a captured graph serve all of them.
    """
    passes = max(1, -(-count // max(1, fitting)))
    return max(1, -(-count // passes))


def in_chunks(count: int, step: Callable[[int, int], None], fitting: int, inputs: int = 1) -> None:
    """Call ``step(start, stop)`` until ``count`` is reached, with at most ``fitting`` elements at once.

    ``inputs`` are passed for each element, of which a listener of :mod:`cnnviz.engine.meter` is told.

    Where memory runs out, the chunk is halved and taken again: a step must not have changed anything before it is
    through. After ``OneByOne`` the elements are taken again one by one.
    """
    with stage(count * inputs) as part:

        def counted(start: int, stop: int) -> None:
            step(start, stop)
            if part is not None:
                part.advance((stop - start) * inputs)

        _in_chunks(count, step if part is None else counted, even(count, fitting))


def _in_chunks(count: int, step: Callable[[int, int], None], size: int) -> None:
    start = 0
    while start < count:
        stop = min(start + size, count)
        try:
            step(start, stop)
            done = True
        except OneByOne:
            size = 1
            continue
        except Exception as error:
            if not is_out_of_memory(error) or stop - start == 1:
                raise
            done = False
        if done:
            start = stop
        else:  # only here has the error let go of the tensors it held
            size = max(1, (stop - start) // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    phrases = ("can't allocate memory", "not enough memory", "backend out of memory", "STATUS_ALLOC_FAILED")
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or any(phrase in str(error) for phrase in phrases)
