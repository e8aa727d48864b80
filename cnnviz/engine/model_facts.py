"""A cache of facts about a model, valid as long as the model consists of the same modules."""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from operator import is_
from typing import Any

from torch import nn

_remembered: weakref.WeakKeyDictionary[nn.Module, tuple[list[weakref.ref[nn.Module]], dict[Hashable, Any]]]
_remembered = weakref.WeakKeyDictionary()


def facts_of(model: nn.Module) -> dict[Hashable, Any]:
    """The cached facts of this model, by their keys. Empty after a module was exchanged.

    A key names the fact and all that it depends on, such as the shape of the inputs. Facts of one question must not
    change the answer to another one.
    """
    modules = list(model.modules())
    known, facts = _remembered.get(model, ([], {}))
    # at the speed of C, for every pass asks
    if len(known) != len(modules) or not all(map(is_, [reference() for reference in known], modules)):
        facts = {}
        _remembered[model] = [weakref.ref(module) for module in modules], facts
    return facts
