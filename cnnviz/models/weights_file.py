"""What files of weights hold: a file, the several files that an index lists, or a folder with either."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cnnviz.images.reading import one_line
from cnnviz.models.file_kinds import kind_of, not_weights
from cnnviz.models.unpickling import unpickled, untrusted

SAVE_PLAIN = "save them dense and unquantized"
IN_FOLDERS = (
    *("model.safetensors.index.json", "model.safetensors", "diffusion_pytorch_model.safetensors"),
    *("pytorch_model.bin.index.json", "pytorch_model.bin"),
)
"""What the folders of Hugging Face call weights; the first that is there is read."""
LONGEST_INDEX = 100_000_000  # bytes; those of the largest models have a few megabytes


@dataclass(frozen=True)
class Content:
    """What was in the file: a state dict, alone or inside what training scripts save, or a network."""

    value: Any
    size: int
    """Bytes of the files."""


def read_content(path: str | Path, trust_model: bool = False) -> Content:
    """What is in the file of weights, on the CPU. Raises ValueError, FileNotFoundError."""
    path = _located(Path(path))
    kind = kind_of(path)
    if kind == "index":
        return _read_index(path, trust_model)
    size = path.stat().st_size
    if kind == "safetensors":
        return Content(_read_safetensors(path), size)
    if kind == "checkpoint":
        return Content(unpickled(path, trust_model), size)
    if not trust_model:
        raise untrusted(path, f"is a program ({kind})")
    return Content(_run_program(path, kind), size)


def read_network(path: str | Path, trust_model: bool = False) -> Any:
    """What is in a file that should hold a whole network: TorchScript, an exported program (.pt2) or a pickle.

    It is None for a file of numbers alone. All others run code when they are opened.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind in ("safetensors", "index"):
        return None
    if kind == "checkpoint":
        return unpickled(path, trust_model)
    if not trust_model:
        before = "torch.jit" if kind == "TorchScript" else "torch.export"
        raise untrusted(
            path,
            f"is a program ({kind}), which only methods that need scores alone can explain, such as occlusion",
            f"for all methods give the network as it was before {before}: package.module:factory",
        )
    return _run_program(path, kind)


def _run_program(path: Path, kind: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, which the file cannot help
        try:
            script: Any = torch.jit.load  # which has no types
            return script(path, "cpu") if kind == "TorchScript" else torch.export.load(path).module()
        except Exception as reason:  # code of the file's own can fail in any way
            raise ValueError(f"model '{path}' does not load: {one_line(reason)}") from reason


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, KeyError, ValueError, OSError) as reason:
        raise ValueError(f"weights '{path}' are damaged or cut short: {one_line(reason)}") from reason
    except NotImplementedError as reason:  # packed numbers, such as those of 4 bits
        raise ValueError(f"weights '{path}' hold numbers that PyTorch can't load; {SAVE_PLAIN}") from reason


def _located(path: Path) -> Path:
    """The file, or of a folder the one in it that holds or lists its weights."""
    if not path.is_dir():
        return path
    usual = [path / name for name in IN_FOLDERS if (path / name).is_file()]
    if usual:
        return usual[0]
    others = sorted((*path.glob("*.index.json"), *path.glob("*.safetensors")))
    if len(others) > 1:
        names = ", ".join(file.name for file in others[:4])
        raise ValueError(f"weights '{path}' are a folder with {len(others)} files ({names}); name one of them")
    return others[0] if others else path


def _read_index(path: Path, trust_model: bool) -> Content:
    """All weights that the index lists, out of the files beside it."""
    try:
        listed = json.loads(path.read_bytes()) if path.stat().st_size <= LONGEST_INDEX else None
    except (ValueError, RecursionError):
        listed = None
    places = listed.get("weight_map") if isinstance(listed, dict) else None
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise not_weights(path, "the file is JSON; of JSON an index with a weight_map is read")
    weights: dict[Any, Any] = {}
    size = 0
    for name in sorted(set(places.values())):
        if name in ("", ".", "..") or any(letter in name for letter in "/\\:\0"):
            raise ValueError(f"weights '{path}' list the file {name!r}; only files beside the index are read")
        shard = path.parent / name
        if not shard.is_file():
            raise FileNotFoundError(f"weights '{path}' list the file '{name}', which is not beside it; get it too")
        if kind_of(shard) == "index":
            raise ValueError(f"weights '{path}' list the file '{name}', which is an index itself")
        content = read_content(shard, trust_model)
        if not isinstance(content.value, Mapping):
            raise ValueError(f"weights '{path}' list the file '{name}', which holds no state dict")
        weights |= content.value
        size += content.size
    absent = [name for name in places if name not in weights]
    if absent:
        raise ValueError(
            f"weights '{path}' list {absent[0]} in the file '{places[absent[0]]}', which does not have it; "
            "get all files of one download"
        )
    return Content(weights, size)
