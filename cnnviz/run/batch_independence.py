"""Whether the inputs of a batch change each other's scores, as norms without running statistics let them."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor, nn

from cnnviz.engine.agreement import agrees
from cnnviz.engine.batching import is_out_of_memory
from cnnviz.engine.model_facts import facts_of


def independent(
    model: nn.Module,
    key: Hashable,
    alone: Tensor,
    beside: Callable[[], Tensor],
    precision: torch.dtype | None = None,
) -> bool:
    """True if scores (N,) of a batch stay the same beside other inputs. Found once for each model and key.

    Args:
        model: in eval mode.
        key: what the answer depends on besides the model, such as the shape of the inputs.
        alone: the scores of the batch.
        beside: computes them with other inputs beside the batch. Where it fails, the batch is taken to be mixed.
        precision: what both were computed in, if that is less than the scores have.
    """
    facts, fact = facts_of(model), ("batch independence", key)
    if fact not in facts:
        facts[fact] = unchanged(alone, beside, precision)
    return bool(facts[fact])


def unchanged(alone: Tensor, beside: Callable[[], Tensor], precision: torch.dtype | None = None) -> bool:
    """True if these scores are those computed otherwise, up to rounding; False where that fails."""
    try:
        together = beside()
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return False
    return bool(agrees(together, alone, precision=precision))
