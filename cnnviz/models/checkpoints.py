"""Which weights of a file are the network's: what training scripts put around and before them is taken off.

A set of weights is taken where every weight of the network is found under its name, behind one prefix. Nothing is
taken in part. Where several sets fit, the words that lead to them decide, in the order of ``WORDS``; where these
don't, the user does.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from cnnviz.models.weight_sets import WeightSet, brief, listed, under, walked, weight_sets

WORDS = (
    # averages over training, with which scripts evaluate: timm, mmengine, ultralytics, BasicSR, DINO
    *("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "ema", "params_ema", "teacher"),
    *("state_dict", "model_state_dict", "model_state", "model", "network", "net", "params", "weights", "module"),
    *("_orig_mod", "backbone", "encoder", "encoder_q", "student"),
)
"""What weights are saved under, and what stands before their names. The first is taken where several fit."""
WRAPPED = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name


@dataclass(frozen=True, eq=False)
class Fit:
    """A set of weights as the network would take it: those behind a prefix, without it."""

    of: WeightSet
    prefix: str
    weights: OrderedDict[str, Any]
    missing: Sequence[str]
    unexpected: Sequence[str]
    others: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    """Those of another shape: theirs, and the network's."""
    spare: tuple[str, ...]
    rivals: Sequence[Fit] = field(default=())

    @property
    def whole(self) -> bool:
        return not self.missing and not self.unexpected and not self.others

    @property
    def head(self) -> tuple[int, int] | None:
        """How many outputs these weights and the network have, if that is all that differs."""
        outputs = {(there[:1], here[:1]) for there, here in self.others.values()}
        same_inputs = all(there[1:] == here[1:] for there, here in self.others.values())
        if self.missing or self.unexpected or len(outputs) != 1 or not same_inputs:
            return None
        there, here = outputs.pop()
        return (there[0], here[0]) if there and here and there[0] > 0 else None

    @property
    def beside(self) -> list[str]:
        """Weights of the set that do not begin with the prefix."""
        return [name for name in self.of.tensors if not name.startswith(self.prefix)]

    @property
    def rank(self) -> tuple[int, ...]:
        return _rank((*self.of.keys, *self.prefix.split(".")[:-1]))

    @property
    def place(self) -> str:
        """Where in the file it is, in a few words; empty if it is all of the file."""
        return _place(self.of.keys, self.prefix)

    @property
    def named(self) -> str:
        return self.place or "the outermost set"

    def note(self, source: object) -> str | None:
        """One line about what was chosen, None if there was nothing to choose."""
        if not self.place and not self.rivals:
            return None
        parts = [f"{self.named} is taken"]
        if self.beside:
            parts.append(f"left out beside it: {len(self.beside)} ({listed(self.beside)})")
        if self.rivals:
            parts.append(f"{listed([rival.named for rival in self.rivals])} would fit too (--key and --prefix choose)")
        return f"weights '{source}': {'; '.join(parts)}"

    def again(self, expected: Mapping[str, Any]) -> Fit:
        """The same weights for another network."""
        return _compared(self.of, self.prefix, expected, self.spare)


def chosen(
    content: Any,
    expected: Mapping[str, Any],
    source: object,
    *,
    key: str | None = None,
    prefix: str | None = None,
    spare: tuple[str, ...] = (),
) -> Fit:
    """The weights of a file that are the network's, whose state dict is ``expected``; if none fit, the nearest.

    ``key`` and ``prefix`` say where they are. Weights whose names start with one of ``spare`` may be left over.
    Raises ValueError for what holds no weights, a wrong key or prefix, and several sets of equal right.
    """
    keys = () if key is None else (key,)
    sets = list(weight_sets(content if key is None else under(content, key, source), keys, source))
    if prefix is not None:
        prefix = _as_in(sets, prefix, source)
    needed = {name for name in expected if not _is_count(name)}
    fits: list[Fit] = []
    nearest: tuple[int, Fit] | None = None
    for each in sets:
        if prefix is None:
            hits = _prefixes(each.tensors, needed)
        else:
            hits = Counter({prefix: sum(f"{prefix}{name}" in each.tensors for name in needed)})
        complete = [before for before, count in hits.items() if count == len(needed)]
        if "" in complete:
            complete = [""]  # the network of the file is this one or a larger one, and not a part of a larger one
        for before in complete if prefix is None else [prefix]:
            fit = _compared(each, before, expected, spare)
            if fit.whole or fit.head is not None:
                fits.append(fit)
        before, count = max(hits.items(), key=lambda item: item[1], default=(_wrapped(each.tensors), 0))
        candidate = _compared(each, before, expected, spare)
        if nearest is None or (-count, candidate.rank) < (-nearest[0], nearest[1].rank):
            nearest = count, candidate
    fits.sort(key=lambda fit: (fit.rank, not fit.whole))
    if not fits:
        assert nearest is not None  # weight_sets gives one at least
        return nearest[1]
    first, *rivals = fits
    same = [fit for fit in rivals if fit.rank == first.rank and fit.whole == first.whole]
    if same:
        ways = listed([fit.named for fit in (first, *same)])
        raise ValueError(
            f"weights '{source}' fit in {len(same) + 1} ways ({ways}); say which: --key or --prefix "
            "(in Python key= or prefix=)"
        )
    return _with(first, rivals)


def chosen_network(content: Any, source: object, key: str | None = None) -> tuple[nn.Module, str | None]:
    """The network in the content of a file, alone or in a dict, and a line about which one it is if it is in a dict.

    Raises ValueError if there is none, or several of equal right.
    """
    keys = () if key is None else (key,)
    found = list(walked(content if key is None else under(content, key, source), keys))
    networks = sorted(
        ((_rank(way), _place(way), each) for way, each in found if isinstance(each, nn.Module)),
        key=lambda one: one[0],
    )
    if not networks:
        raise ValueError(
            f"'{source}' holds weights without a network; name the network, and give the file as its weights "
            "(--weights FILE)"
        )
    (rank, place, network), *others = networks
    if any(other[0] == rank for other in others):
        ways = listed([other[1] for other in networks])
        raise ValueError(f"'{source}' holds {len(networks)} networks ({ways}); say which: --key (in Python key=)")
    if not place:
        return network, None
    more = f"; {listed([other[1] for other in others])} is there too (--key chooses)" if others else ""
    return network, f"model '{source}': {place} is taken{more}"


def _compared(of: WeightSet, prefix: str, expected: Mapping[str, Any], spare: tuple[str, ...]) -> Fit:
    weights: Any = OrderedDict(
        (name[len(prefix) :], value) for name, value in of.tensors.items() if name.startswith(prefix)
    )
    # safetensors do not tell their age; today's names are the best guess
    weights._metadata = {
        name[len(prefix) :]: value for name, value in of.versions.items() if f"{name}.".startswith(prefix)
    } or getattr(expected, "_metadata", {})
    shapes = {
        name: (_shape(weights[name]), _shape(tensor))
        for name, tensor in expected.items()
        if isinstance(tensor, Tensor) and isinstance(weights.get(name), Tensor)
    }
    others = {name: (there, here) for name, (there, here) in shapes.items() if there != here}
    missing = [name for name in expected if name not in weights and not _is_count(name)]
    unexpected = [name for name in weights if name not in expected and not name.startswith(spare)]
    return Fit(of, prefix, weights, missing, unexpected, others, spare)


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return () if tensor.is_nested else tuple(tensor.shape)  # torch's lists of tensors have none


def _with(fit: Fit, rivals: Sequence[Fit]) -> Fit:
    return Fit(fit.of, fit.prefix, fit.weights, fit.missing, fit.unexpected, fit.others, fit.spare, rivals)


def _place(keys: Sequence[str], prefix: str = "") -> str:
    parts = {"key": ".".join(keys), "prefix": prefix}
    return ", ".join(f"{word} '{brief(value)}'" for word, value in parts.items() if value)


def _rank(words: Sequence[str]) -> tuple[int, ...]:
    # weights that are not inside of anything are as plain as a state_dict
    return tuple(WORDS.index(word) if word in WORDS else len(WORDS) for word in words or ("state_dict",))


def _is_count(name: str) -> bool:
    """Whether it is a batch norm's count of batches, which is for training alone; older files lack it."""
    return name.endswith("num_batches_tracked")


def _prefixes(names: Mapping[str, Any], needed: set[str]) -> Counter[str]:
    """What stands before names of the network, and before how many of them; alphabetic where equally many."""
    longest = max(map(len, needed), default=0)
    hits: Counter[str] = Counter()
    for name in names:
        if name in needed:
            hits[""] += 1
        dot = name.rfind(".")
        while dot >= 0 and len(name) - dot - 1 <= longest:
            if name[dot + 1 :] in needed:
                hits[name[: dot + 1]] += 1
            dot = name.rfind(".", 0, dot)
    return Counter(dict(sorted(hits.items())))


def _wrapped(names: Mapping[str, Any]) -> str:
    """What wrappers of modules put before all names."""
    before = ""
    while names:
        more = next((each for each in WRAPPED if all(name.startswith(before + each) for name in names)), None)
        if more is None:
            break
        before += more
    return before


def _as_in(sets: Sequence[WeightSet], prefix: str, source: object) -> str:
    """The prefix as it is written before names, with its dot. Raises ValueError if it is before none."""
    names = [name for each in sets for name in each.tensors]
    for written in (prefix, f"{prefix}."):
        if written in ("",) or (written.endswith(".") and any(name.startswith(written) for name in names)):
            return written
    there = list(dict.fromkeys(f"{name.partition('.')[0]}." for name in names if "." in name))
    raise ValueError(
        f"weights '{source}' have no names with the prefix {prefix!r}; names begin with {listed(there, 8) or 'none'}"
    )
