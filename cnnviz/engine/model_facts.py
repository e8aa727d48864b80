"""The modules of a model, and a cache of facts about it, valid as long as it consists of the same modules."""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import Any

from torch import nn

_remembered: weakref.WeakKeyDictionary[nn.Module, _Tree] = weakref.WeakKeyDictionary()
_modules = attrgetter("_modules")


@dataclass(eq=False)
class _Tree:
    """How the modules of a model hang together; the modules are not kept alive."""

    modules: list[weakref.ref[nn.Module]]
    names: list[str]
    keys: list[str]
    """The names of the children of all modules, one module after the other."""
    sizes: list[int]
    """How many children each module has."""
    places: list[int]
    """Where among the modules each child is; -1 for a child that is None."""
    facts: dict[Hashable, Any] = field(default_factory=dict)

    def now(self) -> list[nn.Module] | None:
        """The modules, or None where they are others by now. At the speed of C, for every pass asks."""
        modules: list[Any] = [reference() for reference in self.modules]
        try:
            children = _children(modules)
        except AttributeError:  # one is gone
            return None
        if [*map(len, children)] != self.sizes or [*chain.from_iterable(children)] != self.keys:
            return None
        expected = [*map([*modules, None].__getitem__, self.places)]
        # lists compare what they hold by identity first
        return modules if [*chain.from_iterable(map(dict.values, children))] == expected else None


def modules_of(model: nn.Module) -> list[nn.Module]:
    """All modules of a model, each once, in the order of ``model.modules()``."""
    return _known(model)[1]


def named_modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """All modules of a model by name, each once, in the order of ``model.named_modules()``."""
    tree, modules = _known(model)
    return dict(zip(tree.names, modules, strict=True))


def facts_of(model: nn.Module) -> dict[Hashable, Any]:
    """The cached facts of this model, by their keys. Empty after a module was exchanged.

    A key names the fact and all that it depends on, such as the shape of the inputs. Facts of one question must not
    change the answer to another one.
    """
    return _known(model)[0].facts


def _known(model: nn.Module) -> tuple[_Tree, list[nn.Module]]:
    tree = _remembered.get(model)
    modules = tree.now() if tree is not None else None
    if tree is None or modules is None:
        named = dict(model.named_modules())
        modules = [*named.values()]
        tree = _tree(named, modules)
        _remembered[model] = tree
    return tree, modules


def _tree(named: dict[str, nn.Module], modules: list[nn.Module]) -> _Tree:
    children = _children(modules)
    place = {id(module): number for number, module in enumerate(modules)} | {id(None): -1}
    return _Tree(
        [weakref.ref(module) for module in modules],
        [*named],
        [*chain.from_iterable(children)],
        [*map(len, children)],
        [place[id(child)] for each in children for child in each.values()],
    )


def _children(modules: list[nn.Module]) -> list[dict[str, Any]]:
    children = [*map(_modules, modules)]
    # scripted modules have no dict
    return children if {*map(type, children)} <= {dict} else [dict(each.items()) for each in children]
