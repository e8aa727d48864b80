"""Loading models by name, with the preprocessing and the class names they were trained with."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from cnnviz.images.in_notebooks import InNotebooks
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.models.by_name import Asked, check_num_classes, found
from cnnviz.models.class_names import class_names
from cnnviz.models.prediction import Predictions

ASKING = "cnnviz.explanations.predictions"
"""Imported by its name: what asks a model stands above what loads it."""


@dataclass(frozen=True, eq=False)
class LoadedModel(InNotebooks):
    """A network in eval mode on the CPU, with its preprocessing, and its class names where they are known."""

    name: str
    module: nn.Module
    preprocessing: Preprocessing
    categories: tuple[str, ...] | None
    num_classes: int | None = None
    """How many outputs it has, where that is known without running it."""
    notes: tuple[str, ...] = ()
    """What was decided when its weights were read, a line each: the set of weights that was taken, the classes."""

    def __repr__(self) -> str:
        count = self.num_classes or (len(self.categories) if self.categories else None)
        tensors = (*self.module.parameters(), *self.module.buffers())
        devices = dict.fromkeys(str(tensor.device) for tensor in tensors)
        parts = (
            f"{self.name!r}: {type(self.module).__name__}",
            "number of classes unknown" if count is None else f"{count} classes",
            self.preprocessing.describe(),
            f"on {' and '.join(devices)}" if devices else "",
        )
        return f"LoadedModel({'; '.join(filter(None, parts))})"

    def predict(self, pictures: Any, top: int = 5) -> Predictions:
        """What the network sees: for each picture the ``top`` classes, the highest score first.

        Args:
            pictures: what :func:`cnnviz.explain` takes as inputs: a path, a PIL image, a list of them, a tensor
                (N, C, *spatial), or a ``DataLoader``.
            top: how many classes; of a network with fewer classes, all.

        Raises:
            ValueError, TypeError: for a ``top`` below 1, and what ``explain`` raises.
        """
        asking = importlib.import_module(ASKING)
        found: Predictions = asking.predictions(self.module, pictures, top, self.preprocessing, self.categories)
        return found


def load_model(
    name: str,
    *,
    weights: str | Path | None = None,
    trust_model: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | tuple[int, int] | None = None,
    categories: str | Path | Sequence[str] | None = None,
    num_classes: int | None = None,
    key: str | None = None,
    prefix: str | None = None,
) -> LoadedModel:
    """The model of that name: bundled, torchvision's or timm's, of your own code, or in a trusted file.

    ``name``: 'demo', 'demo-shortcut', 'demo-transformer' or 'demo-segmentation'; 'resnet50' or
    'resnet50:IMAGENET1K_V1'; 'timm:resnet50.a1_in1k'; 'package.module:factory', which is imported and called; a file
    that holds a whole network; or an ONNX file, whose network is a black box.
    ``weights``: a file, the index of several or a folder with either; torchvision's by name, 'IMAGENET1K_V1';
    'random' for none; by default the published.
    ``num_classes``: how many outputs the network is made with; by default as many as the file of weights has.
    ``key`` and ``prefix``: the entry of the file that holds the weights, 'state_dict_ema', and what stands before
    their names, 'backbone.'; by default those with which all weights fit. ``notes`` of the model tell what was taken.
    ``mean`` and ``std`` (on values in 0..1), ``size`` (pixels) and ``categories`` (names in the order of the outputs,
    or a file: one per line, or JSON, CSV or YAML) override what comes with the model.

    Raises LookupError for an unknown name, ConnectionError for weights that cannot be downloaded, and what
    ``load_weights`` raises.
    """
    if num_classes is not None and (type(num_classes) is not int or num_classes < 1):
        raise ValueError(f"num_classes {num_classes!r} is no number of classes; give a whole number of 1 or more")
    asked = Asked(weights, trust_model, num_classes, key, prefix)
    asked.check_choice(name)
    model = found(name, asked, size)
    if num_classes is not None:
        check_num_classes(name, model.num_classes, num_classes)
    try:
        model.module.eval()
    except NotImplementedError:  # an exported program is what it was exported as; the flag only says so
        for part in model.module.modules():
            part.training = False
    names = model.categories if categories is None else class_names(categories)
    count = len(names) if names is not None and model.num_classes is None else model.num_classes
    return LoadedModel(name, model.module, model.preprocessing.changed(mean, std, size), names, count, model.notes)
