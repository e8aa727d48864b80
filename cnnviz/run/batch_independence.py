"""Whether the inputs of a batch change each other's outputs, as norms without running statistics let them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor, nn

from cnnviz.engine.agreement import agrees
from cnnviz.engine.batching import is_out_of_memory
from cnnviz.engine.model_facts import facts_of

Values = Sequence[Tensor]


def independent(
    model: nn.Module, key: Hashable, alone: Values, beside: Callable[[], Values], precision: torch.dtype | None = None
) -> bool:
    """True if outputs (N, ...) of a batch stay the same beside other inputs. Found once for each model and key.

    Args:
        model: in eval mode.
        key: what the answer depends on besides the model, such as the shape of the inputs. Not the target: all that
            a target may read is compared.
        alone: the outputs for the batch.
        beside: computes them with other inputs beside the batch. Where it fails, the batch is taken to be mixed.
        precision: what both were computed in, if that is less than the outputs have.
    """
    facts, fact = facts_of(model), ("batch independence", key)
    if fact not in facts:
        facts[fact] = unchanged(alone, beside, precision)
    return bool(facts[fact])


def unchanged(alone: Values, beside: Callable[[], Values], precision: torch.dtype | None = None) -> bool:
    """True if these values are those computed otherwise, up to rounding; False where that fails."""
    try:
        together = beside()
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return False
    pairs = zip(together, alone, strict=False)
    return len(together) == len(alone) and all(agrees(*pair, precision=precision) for pair in pairs)
