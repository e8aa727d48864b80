"""The files of an explanation: its values with all that belongs to them, for this program and for others."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor

from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.options import ExplainOptions
from cnnviz.explanations.saved_explanations import (
    check_explanation,
    check_values_finite,
    read_description,
    saved_options,
)
from cnnviz.images.originals import At, original_pixels, read_originals
from cnnviz.images.places import check_file
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.images.reading import one_line
from cnnviz.images.writing import PICTURES, packed, write, write_pictures

NOTE = "note."
SHAPE = "inputs_shape"
UNREADABLE = (safetensors.SafetensorError, NotImplementedError, TypeError, ValueError, OSError)
"""What goes wrong in a file that is damaged, or of something else."""


def write_one(
    explanation: Explanation, path: Path, renderer: Any, at: At, inputs: bool, settings: Mapping[str, Any]
) -> list[Path]:
    """As :meth:`Explanation.save`."""
    contents: Mapping[str, Callable[[], bytes]] = {
        ".safetensors": lambda: packed(*described(explanation, inputs)),
        ".npy": lambda: _array(explanation),
        ".npz": lambda: _arrays(explanation, inputs),
        ".pdf": lambda: _figure(explanation, "pdf", renderer, at, settings),
        ".svg": lambda: _figure(explanation, "svg", renderer, at, settings),
    }
    kind = path.suffix.lower()
    if kind in contents:
        write(path, contents[kind]())
        return [path]
    if kind not in PICTURES:
        known = ", ".join((*contents, *PICTURES))
        raise ValueError(f"{path} has no suffix that can be written; use {known}")
    return write_pictures(path, list(explanation.render(renderer, at, **settings)))


def read_one(path: str | Path) -> Explanation:
    """As :meth:`Explanation.load`."""
    check_file(Path(path), "an explanation")
    try:
        tensors, about = read_tensors(path)
        if not {"explanations", "several"} & set(about):
            return restored(tensors, about)
    except KeyError as error:
        raise ValueError(f"{path} is not an explanation that cnnviz saved: it has no {error}") from error
    except UNREADABLE as error:
        raise ValueError(f"{path} is not an explanation that cnnviz saved: {one_line(error)}") from error
    if "several" in about:
        raise ValueError(f"{path} holds several explanations; read it by cnnviz.explanations.Explanations.load")
    raise ValueError(
        f"{path} holds explanations of {len(about['explanations'])} inputs; "
        "read it by cnnviz.explanations.JointExplanation.load"
    )


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file, and what is said about them."""
    with safetensors.safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
        return tensors, read_description((file.metadata() or {})["cnnviz"])


def restored(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Explanation:
    """The explanation of such tensors and such a description. Raises KeyError or ValueError for what is none."""
    explanation = Explanation(
        values=tensors["values"],
        inputs=_shape_alone(about[SHAPE]) if SHAPE in about and "inputs" not in tensors else tensors["inputs"],
        target=tensors.get("target"),
        score=tensors["score"],
        recipe=about["recipe"],
        preprocessing=Preprocessing.from_dict(about["preprocessing"]) if about["preprocessing"] else None,
        categories=tuple(about["categories"]) if about["categories"] else None,
        notes={name.removeprefix(NOTE): tensor for name, tensor in tensors.items() if name.startswith(NOTE)},
        renderer=about["renderer"],
        objective=tuple(told) if isinstance(told := about.get("objective"), list) else told,
        probability=tensors.get("probability"),
        boxes=tensors.get("boxes"),
        originals=read_originals(about.get("originals"), tensors),
        options=ExplainOptions(**saved_options(about)),
        computed_in=about.get("computed_in"),
        of=about.get("of", 0),
        together=about.get("together", 1),
        fine_values=about.get("fine_values"),
    )
    check_explanation(explanation)
    check_values_finite(explanation)
    return explanation


def described(explanation: Explanation, inputs: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the description that a file holds. Of inputs that are left out, the description has the shape."""
    tensors = {"values": explanation.values, "score": explanation.score}
    kept = inputs and not explanation.inputs.is_meta
    more = {
        "inputs": explanation.inputs if kept else None,
        "target": explanation.target,
        "probability": explanation.probability,
        "boxes": explanation.boxes,
    }
    tensors |= {name: tensor for name, tensor in more.items() if tensor is not None}
    tensors |= {NOTE + name: note for name, note in explanation.notes.items()}
    tensors |= original_pixels(explanation.originals)
    originals = explanation.originals
    about = {
        "recipe": explanation.recipe,
        "preprocessing": explanation.preprocessing.as_dict() if explanation.preprocessing else None,
        "categories": explanation.categories,
        "renderer": explanation.renderer,
        "objective": explanation.objective,
        "options": asdict(explanation.options),
        "computed_in": explanation.computed_in,
        "of": explanation.of,
        "together": explanation.together,
        "originals": None if originals is None else [each and each.described() for each in originals],
        "versions": {name: version(name) for name in ("cnnviz", "torch")},
    }
    if explanation.fine_values is not None:
        about["fine_values"] = explanation.fine_values
    return tensors, about if kept else about | {SHAPE: list(explanation.inputs.shape)}


def _shape_alone(shape: Any) -> Tensor:
    """Inputs of which nothing but the shape is known. Raises ValueError for what is no shape."""
    sides = isinstance(shape, list) and all(type(side) is int and 0 < side < 2**31 for side in shape)
    if not sides or not 2 <= len(shape) <= 8:
        raise ValueError(f"its inputs have the shape {str(shape)[:40]}, which is none")
    return torch.empty(shape, device="meta")


def _array(explanation: Explanation) -> bytes:
    stream = io.BytesIO()
    np.save(stream, explanation.numpy(), allow_pickle=False)
    return stream.getvalue()


def _arrays(explanation: Explanation, inputs: bool) -> bytes:
    """Values, inputs and what is said of each input, by name."""
    arrays: dict[str, Any] = {"values": explanation.numpy(), "score": _of(explanation.score)}
    if inputs and not explanation.inputs.is_meta:
        arrays["inputs"] = _of(explanation.inputs)
    for name, tensor in {"target": explanation.target, "probability": explanation.probability}.items():
        if tensor is not None:
            arrays[name] = _of(tensor)
    arrays |= {"names": np.array(explanation.names()), "recipe": np.array(explanation.recipe)}
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _of(tensor: Tensor) -> Any:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _figure(explanation: Explanation, kind: str, renderer: Any, at: At, settings: Mapping[str, Any]) -> bytes:
    stream = io.BytesIO()
    undated = {"CreationDate": None} if kind == "pdf" else {"Date": None}
    explanation.figure(renderer, at=at, **settings).savefig(stream, format=kind, metadata=undated)
    return stream.getvalue()
