"""The dicts and networks in the content of a file of weights, and those of them that are state dicts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

DEPTH = 4  # of dicts inside each other; scripts have two or three
# torchvision's published densenets keep the names of a time when "norm.1" could be a module's name
OF_OLD_DENSENETS = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")


@dataclass(frozen=True, eq=False)
class WeightSet:
    """One state dict of a file."""

    keys: tuple[str, ...]
    """The way to it through the dicts of the file."""
    tensors: Mapping[str, Any]
    versions: Mapping[str, Any]
    """Of modules, by which these rename what older ones wrote."""


def weight_sets(content: Any, keys: tuple[str, ...], source: object) -> Iterator[WeightSet]:
    """The state dicts in the content of a file, with the way to each; the content itself if there is none.

    Raises ValueError for what is neither a dict nor a network.
    """
    if not isinstance(content, (Mapping, nn.Module)):
        what = f"hold a {type(content).__name__}"
        if keys:
            what = f"have a value of type {type(content).__name__} under the key {keys[0]!r}"
        raise ValueError(f"weights '{source}' {what}, not a state dict; save model.state_dict()")
    found = False
    for way, each in walked(content, keys):
        state = each.state_dict() if isinstance(each, nn.Module) else each
        items = _items(state)
        if any(isinstance(value, Tensor) for value in items.values()):
            found = True
            yield _weight_set(way, state, items)
    if not found:
        state = content.state_dict() if isinstance(content, nn.Module) else content
        yield _weight_set(keys, state, _items(state))


def walked(content: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All dicts and networks in the content, each once, and the way to it; what is in a network is not looked at."""
    seen: set[int] = set()
    level = [(keys, content)]
    for _ in range(DEPTH):
        inside = []
        for way, each in level:
            if id(each) in seen or not isinstance(each, (Mapping, nn.Module)):
                continue
            seen.add(id(each))
            yield way, each
            if isinstance(each, Mapping):
                inside += [((*way, name), value) for name, value in _items(each).items()]
        level = inside


def _items(state: Mapping[Any, Any]) -> dict[str, Any]:
    """The entries with text for a name. A dict's own methods are asked: a file may put others in their place."""
    items = dict.items(state) if isinstance(state, dict) else state.items()
    return {name: value for name, value in items if isinstance(name, str)}


def _weight_set(keys: tuple[str, ...], state: Mapping[Any, Any], items: Mapping[str, Any]) -> WeightSet:
    tensors = {
        # a file may put other things in the place of a tensor's methods; another view of it has its own
        OF_OLD_DENSENETS.sub(r"\1", name): Tensor.detach(value) if isinstance(value, Tensor) else value
        for name, value in items.items()
        # epochs, losses and the like stand beside weights; modules' own extra state is no tensor either
        if isinstance(value, Tensor) or "." in name or name == "_extra_state"
    }
    versions = getattr(state, "_metadata", None)
    return WeightSet(keys, tensors, _versions(versions) if isinstance(versions, Mapping) else {})


def _versions(metadata: Mapping[Any, Any]) -> dict[str, dict[str, int]]:
    """By the names of modules; a file may say anything here."""
    return {
        module: {name: value for name, value in _items(each).items() if isinstance(value, int)}
        for module, each in _items(metadata).items()
        if isinstance(each, Mapping)
    }


def under(content: Any, key: str, source: object) -> Any:
    """What the content has under the key; dots lead into dicts inside."""
    items = _items(content) if isinstance(content, Mapping) else {}
    if key in items:
        return items[key]
    heads = [name for name in items if key.startswith(f"{name}.") and isinstance(items[name], Mapping)]
    if heads:
        return under(items[heads[0]], key[len(heads[0]) + 1 :], source)
    near = get_close_matches(key, items, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {listed(list(items), 8)}" if items else "no keys"
    raise ValueError(f"weights '{source}' have no key {key!r}; {hint}")


def listed(names: Sequence[str], count: int = 3) -> str:
    """The first of the names."""
    return f"{', '.join(map(brief, names[:count]))}{', ...' if len(names) > count else ''}"


def brief(name: str) -> str:
    """The name for a message: a file may give names of any length, on any number of lines."""
    line = " ".join(name.split())
    return line if len(line) <= 120 else f"{line[:117]}..."
