"""How many items a shard has, where nobody says it: so that one takes neither much disk nor much time."""

from __future__ import annotations

import warnings

import torch

from cnnviz.datasets.question import BatchQuestion
from cnnviz.engine.meter import metered

MOST_ITEMS = 256
MOST_BYTES = 32 * 2**20
MOST_PASSES = 16_384
TRIED_PASSES = 16
"""Of methods of more passes none is made to plan a run."""
UNKNOWN = 64
FEWEST_SHARDS = 32
"""Into so many at least a run is cut, so that several workers have something to do."""


class _Enough(Exception):
    """So many passes are known that the rest need not be made."""


def usual_shard_size(question: BatchQuestion) -> int:
    """The number of items of a shard: a whole number of batches, as far as that is not too much.

    A picture of noise is explained to learn how large its maps are; nothing of a data set is needed, so that equal
    questions have equal shards. Of methods of many passes only their number is learned, and maps count as large as the
    input.
    """
    batch = question.fixed.batch
    preprocessing = question.model.preprocessing
    size = preprocessing.input_size if preprocessing is not None else None
    if size is None:
        return max(UNKNOWN // batch, 1) * batch
    height, width = size
    seen = [1]

    def listen(done: int, total: int) -> None:
        seen.append(total)
        if total > TRIED_PASSES:
            raise _Enough

    weight = next(question.model.module.parameters(), None)
    noise = torch.rand((1, len(preprocessing.mean), height, width), generator=torch.Generator().manual_seed(0))
    if weight is not None:
        noise = noise.to(weight)
    kept = [noise for _ in question.methods]
    try:
        with warnings.catch_warnings(), metered(listen):
            warnings.simplefilter("ignore")
            maps = question.explained(noise - noise.mean(), torch.zeros(1, dtype=torch.int64))
        kept = [maps[name].values for name in question.methods]
    except _Enough:
        pass
    except (ValueError, RuntimeError, TypeError):  # of noise; pictures will tell
        return max(UNKNOWN // batch, 1) * batch
    finally:
        question.prepared.clear()
    width_of = 2 if question.storage.kept == "float16" else 4
    weight_of = sum(question.storage(each).numel() * width_of for each in kept)
    items = max(1, min(MOST_ITEMS, MOST_BYTES // max(1, weight_of), MOST_PASSES // max(seen)))
    return items if items < batch else items // batch * batch


def enough_shards(most: int, items: int, batch: int) -> int:
    """The size of a shard of at most ``most`` items, smaller where there would be few shards; whole batches."""
    fair = -(-items // FEWEST_SHARDS)
    return max(1, min(most, -(-fair // batch) * batch))
