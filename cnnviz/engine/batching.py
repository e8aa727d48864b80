"""How many inputs are evaluated at once; chunks are halved when memory runs out."""

from __future__ import annotations

from collections.abc import Callable

import torch

# On CPU large batches lose more to page faults than they win, because the C library gives large blocks back to the
# system whenever they are freed. With graphs four at a time is near the best on common networks; without, as many as
# make no larger output than this: 3 to 5 pictures of 224 x 224, 8 to 16 of 112, 16 to 40 of 64.
CPU_ITEMS = 4
CPU_OUTPUT = 2**24
CPU_BYTES = 2**30
CPU_REPLAYED = 2**23


def budget(device: torch.device, memory: int | None) -> int:
    """Bytes that one chunk may take: ``memory`` if given. Raises ValueError for less than one byte."""
    if memory is not None:
        if memory < 1:
            raise ValueError(f"a memory budget of {memory} bytes holds nothing; None takes a share of what is free")
        return memory
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int((free + idle) * 0.6)
    return CPU_BYTES


def items_at_once(device: torch.device, memory: int | None, bytes_per_item: int) -> int:
    """How many inputs with a graph fit the budget; at least one."""
    fitting = max(1, budget(device, memory) // max(1, bytes_per_item))
    return min(fitting, CPU_ITEMS) if device.type == "cpu" else fitting


def variants_of(device: torch.device, memory: int | None, largest: int) -> int:
    """How many variants to replay at once, by the bytes of the largest output that one of them makes; at least one."""
    fitting = budget(device, memory) // (4 * largest)  # the output, what it is made of, and room to work
    # on CPU outputs that stay in the cache; larger ones lose more than handing out work costs
    return max(1, min(fitting, CPU_REPLAYED // largest) if device.type == "cpu" else fitting)


def passed_at_once(device: torch.device, memory: int | None, largest: int) -> int:
    """How many inputs to pass without a graph, by the bytes of the largest output that one makes; at least one."""
    fitting = budget(device, memory) // (4 * largest)  # the output, what it is made of, and room to work
    return max(1, min(fitting, CPU_OUTPUT // largest) if device.type == "cpu" else fitting)


class OneByOne(Exception):
    """Raised by a step whose elements must not be taken together."""


def in_chunks(count: int, step: Callable[[int, int], int | None], first: int = 1) -> None:
    """Call ``step(start, stop)`` until ``count`` is reached.

    The first step has ``first`` elements and may return how many to take from then on. Where memory runs out, the
    chunk is halved and taken again: a step must not have changed anything before it is through. After ``OneByOne`` the
    elements are taken again one by one.
    """
    start, size = 0, first
    while start < count:
        stop = min(start + size, count)
        advised = None
        try:
            advised = step(start, stop)
            done = True
        except OneByOne:
            size = 1
            continue
        except Exception as error:
            if not is_out_of_memory(error) or stop - start == 1:
                raise
            done = False
        if done:
            size = max(1, advised) if start == 0 and advised else size
            start = stop
        else:  # only here has the error let go of the tensors it held
            size = max(1, (stop - start) // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    phrases = ("can't allocate memory", "not enough memory", "backend out of memory", "STATUS_ALLOC_FAILED")
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or any(phrase in str(error) for phrase in phrases)
