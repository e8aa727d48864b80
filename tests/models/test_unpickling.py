"""What lies beside weights in a checkpoint is passed over, and a pickle gains no power by it."""

from __future__ import annotations

import argparse
import collections
import copy
import datetime
import functools
import os
import types
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cnnviz.models.unpickling import ALLOWED, LeftOut, unpickled
from cnnviz.models.weights import load_weights

INERT = {
    "args": argparse.Namespace(lr=np.float64(0.1), out=Path("runs/1"), nested=argparse.Namespace(a=[1])),
    "simple": types.SimpleNamespace(a=1),
    "numbers": [np.float32(1), np.int64(2), np.bool_(True), np.str_("a"), np.float64(3)],
    "array": np.arange(6.0).reshape(2, 3),
    "objects": np.array([{"a": 1}, None], dtype=object),
    "dtypes": (np.dtype("f4"), np.dtype([("a", "i4"), ("b", "f8")]), np.float32, float, int),
    "paths": [Path("/a/b"), PurePosixPath("a"), PureWindowsPath("c:/a")],
    "counts": collections.defaultdict(list, a=[1], b=[2]),
    "deep": collections.OrderedDict(a=collections.Counter("aab"), b=torch.Size([1, 2]), c={1, 2}, d=1j, e=b"x"),
    "when": (datetime.datetime(2020, 1, 1), datetime.timedelta(1)),
    "random": np.random.RandomState(0).get_state(),
}


class Saved:
    """Pickled as the call of ``made`` with ``args``, and built with ``state`` then."""

    def __init__(self, made: Any, args: tuple[Any, ...] = (), state: Any = None) -> None:
        self.reduced = (made, args) if state is None else (made, args, state)

    def __reduce__(self) -> Any:
        return self.reduced


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return nn.Linear(2, 2).state_dict()


def test_arguments_numbers_and_paths_beside_weights_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    for zipped in (True, False):
        torch.save({"state_dict": weights()} | INERT, path, _use_new_zipfile_serialization=zipped)
        module = nn.Linear(2, 2)
        load_weights(module, path)
        assert torch.equal(module.weight, weights()["weight"])
    read = unpickled(path, False)
    assert set(read) == {"state_dict", *INERT}
    assert type(read["args"]).__name__ == "Namespace"
    assert isinstance(read["args"], LeftOut)
    assert not hasattr(read["args"], "lr")  # nothing of it was kept
    assert read["counts"] == {"a": [1], "b": [2]}


def test_the_names_of_older_and_newer_libraries_are_known(tmp_path: Path) -> None:
    """NumPy and pathlib moved what pickles name; the file is written with the other names put in."""
    path = tmp_path / "a.pth"
    torch.save({"state_dict": weights(), "numbers": np.float64(1), "path": PurePosixPath("a")}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    for old, new in (
        (b"numpy._core.multiarray\nscalar", b"numpy.core.multiarray\nscalar"),
        (b"pathlib\nPurePosixPath", b"pathlib._local\nPurePosixPath"),
        (b"pathlib\nPurePosixPath", b"lightning_fabric.utilities.data\nAttributeDict"),
    ):
        other = {name: content.replace(b"c" + old, b"c" + new) for name, content in entries.items()}
        assert other != entries or np.__version__ < "2"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in other.items():
                archive.writestr(name, content)
        load_weights(nn.Linear(2, 2), path)


def test_nothing_that_is_allowed_does_anything() -> None:
    """Whatever a pickle calls and builds, it is one of our types, without state and without code of others."""
    for made, name in ALLOWED:
        assert made.__module__ == "cnnviz.models.unpickling", name
        one = made("touch /tmp/x", *range(3)) if issubclass(made, LeftOut) else made(os.system)
        assert one == {} or (isinstance(one, LeftOut) and not hasattr(one, "__dict__"))


@pytest.mark.parametrize("zipped", [True, False])
def test_no_door_opens_through_the_types_that_are_allowed(tmp_path: Path, zipped: bool) -> None:
    path, mark = tmp_path / "a.pth", tmp_path / "ran"
    touch = (f"touch {mark}",)

    class Attack:  # of pickle's usual kind
        def __reduce__(self) -> Any:
            return os.system, touch

    namespace = argparse.Namespace()
    attacks = {
        "beside": Attack(),
        "inside a namespace": argparse.Namespace(a=Attack()),
        "in the place of a state": Saved(argparse.Namespace, (), Attack()),
        "by a method of a namespace": Saved(getattr, (namespace, "__init__")),
        "by eval": Saved(eval, (f"__import__('os').system({touch[0]!r})",)),
        "as an argument of a path": Saved(PurePosixPath, (Attack(),)),
        "as a factory": Saved(collections.defaultdict, (Attack(),)),
        "by a partial": Saved(functools.partial, (os.system, *touch)),
        "as an object of NumPy": Saved(np.array, ([1],), None),
        "by a loader of NumPy": Saved(np.load, (str(path),)),
    }
    for name, attack in attacks.items():
        torch.save({"state_dict": weights(), "x": attack}, path, _use_new_zipfile_serialization=zipped)
        module = nn.Linear(2, 2)
        before = module.weight.clone()
        with pytest.raises(ValueError, match="pass --trust-model") as caught:
            load_weights(module, path)
        assert "\n" not in str(caught.value), name
        assert not mark.exists(), name
        assert torch.equal(module.weight, before), name


def hand_written(path: Path, program: bytes) -> None:
    """A file of torch.save whose pickle is this program."""
    torch.save({}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, program if name.endswith("data.pkl") else content)


def test_programs_written_by_hand_end_in_one_line(tmp_path: Path) -> None:
    """What no pickler writes: methods put into a state dict, states of types, types of our own called by name."""
    path, mark = tmp_path / "a.pth", tmp_path / "ran"
    touch = f"touch {mark}".encode()
    namespace = b"cargparse\nNamespace\n)R"
    ordered = b"ccollections\nOrderedDict\n)R"

    def text(value: bytes) -> bytes:
        return b"X" + len(value).to_bytes(4, "little") + value

    programs = {
        "a namespace's class given a state": b"\x80\x02cargparse\nNamespace\n}"
        + text(b"__init__")
        + b"cposix\nsystem\nsb.",
        "a namespace given a hostile state": b"\x80\x02"
        + namespace
        + b"}"
        + text(b"__setstate__")
        + b"cposix\nsystem\nsb.",
        "a namespace with a path of the system": b"\x80\x02" + namespace + b"}" + text(b"a") + text(touch) + b"sb.",
        "the call of what a namespace made": b"\x80\x02" + namespace + text(touch) + b"\x85R.",
        "the type that stands in, by its own name": b"\x80\x02ccnnviz.models.unpickling\nLeftOut\n)R.",
        "methods of a state dict": b"\x80\x02" + ordered + b"}" + text(b"items") + b"cargparse\nNamespace\nsb.",
        "versions that are none": b"\x80\x02" + ordered + b"}" + text(b"_metadata") + b"K\x07sb.",
        "versions of another kind": b"\x80\x02" + ordered + b"}" + text(b"_metadata") + b"}" + text(b"") + b"K\x07ssb.",
        "a chain of getattr": b"\x80\x02cbuiltins\ngetattr\ncos\n"
        + text(b"system")
        + b"\x86R"
        + text(touch)
        + b"\x85R.",
        "a chain through a namespace": b"\x80\x02cbuiltins\ngetattr\n" + namespace + text(b"__class__") + b"\x86R.",
        "a dict of a type": b"\x80\x02ccollections\ndefaultdict\ncposix\nsystem\n\x85R.",
        "an item of a namespace": b"\x80\x02" + namespace + text(b"a") + text(b"b") + b"s.",
        "a longer name": b"\x80\x02cargparse\nNamespace.__init__\n)R.",
        "a name inside of a module": b"\x80\x02cargparse\n_sys.modules\n.",
    }
    for name, program in programs.items():
        hand_written(path, program)
        with pytest.raises(ValueError, match=r"a.pth'") as caught:
            load_weights(nn.Linear(2, 2), path)
        assert "\n" not in str(caught.value), name
        assert not mark.exists(), name


def test_methods_that_a_file_gives_to_a_tensor_are_not_called(tmp_path: Path) -> None:
    odd = torch.ones(2, 2)
    for name in ("float", "numel", "element_size", "is_floating_point", "detach", "clone"):
        setattr(odd, name, argparse.Namespace)
    torch.save({"weight": odd, "bias": torch.ones(2)}, tmp_path / "a.pth")
    module = nn.Linear(2, 2)
    load_weights(module, tmp_path / "a.pth")
    assert torch.equal(module.weight, torch.ones(2, 2))
    torch.save({"weight": odd, "bias": torch.ones(2, 2)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="do not fit Linear: 1 of another shape"):
        load_weights(module, tmp_path / "a.pth")


def test_what_others_allowed_stays_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"state_dict": weights(), "args": argparse.Namespace(a=1)}, path)
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([argparse.Namespace])
    try:
        load_weights(nn.Linear(2, 2), path)
        assert argparse.Namespace in torch.serialization.get_safe_globals()
        assert torch.load(path, weights_only=True)["args"].a == 1
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)
    assert set(torch.serialization.get_safe_globals()) == set(before)


def test_an_array_of_numpy_is_no_tensor(tmp_path: Path) -> None:
    torch.save({"weight": np.ones((2, 2)), "bias": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="1 missing"):
        load_weights(nn.Linear(2, 2), tmp_path / "a.pth")
    torch.save({"0.weight": np.ones((2, 2)), "0.bias": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"have 0.weight as ndarray, not a tensor"):
        load_weights(nn.Sequential(nn.Linear(2, 2)), tmp_path / "a.pth")


def test_entries_that_lie_over_each_other_are_refused(tmp_path: Path) -> None:
    """A zip archive whose entries are all the same bytes: a small file that would be much in memory."""
    path = tmp_path / "a.pth"
    torch.save({"weight": torch.ones(100, 100)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        (stored,) = (entry for entry in archive.infolist() if entry.filename.endswith("data/0"))
        for number in range(1, 50):
            again = copy.copy(stored)
            again.filename = stored.filename.replace("data/0", f"data/{number}")
            archive.filelist.append(again)
        archive._didModify = True  # type: ignore[attr-defined]  # so that it writes its list anew
    assert path.stat().st_size < 60_000
    with pytest.raises(ValueError, match=r"are a zip archive, but not one that torch.save wrote"):
        load_weights(nn.Linear(2, 2), path)
