"""Loading models by name, with the preprocessing and the class names they were trained with."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pickle
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import nn

from cnnviz.engine.black_box import black_box
from cnnviz.images.preprocessing import IMAGENET, Preprocessing
from cnnviz.images.reading import one_line
from cnnviz.models.weights import fill, load_weights, read_module, read_weights

BUNDLED = "cnnviz.demo"
"""Imported by its name: the networks there are made of the segmentation network here."""
UNTRAINED = ("random", "none")
FILE_SUFFIXES = (".pt", ".pth", ".pt2", ".pkl", ".bin", ".ckpt", ".safetensors", ".torchscript")
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.", "aux_classifier.")
"""Prefixes of heads for training alone, which are not built for weights of a file."""
KINDS = "a model is 'demo', a name of torchvision or timm, or 'package.module:factory'"


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network in eval mode on the CPU, with its preprocessing, and its class names where they are known."""

    name: str
    module: nn.Module
    preprocessing: Preprocessing
    categories: tuple[str, ...] | None


def load_model(
    name: str,
    *,
    weights: str | Path | None = None,
    trust_model: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | tuple[int, int] | None = None,
    categories: str | Path | Sequence[str] | None = None,
) -> LoadedModel:
    """The model of that name: bundled, torchvision's or timm's, of your own code, or in a trusted file.

    ``name``: 'demo', 'demo-shortcut' or 'demo-segmentation'; 'resnet50' or 'resnet50:IMAGENET1K_V1';
    'timm:resnet50.a1_in1k'; 'package.module:factory', which is imported and called; a file that holds a whole network;
    or an ONNX file, whose network is a black box.
    ``weights``: a file; torchvision's by name, 'IMAGENET1K_V1'; 'random' for none; by default the published.
    ``mean`` and ``std`` (on values in 0..1), ``size`` (pixels) and ``categories`` (names in the order of the outputs,
    or a text file with one per line) override what comes with the model.

    Raises LookupError for an unknown name, ConnectionError for weights that cannot be downloaded, and what
    ``load_weights`` raises.
    """
    loaded = _by_name(name, weights, trust_model, size)
    try:
        loaded.module.eval()
    except NotImplementedError:  # an exported program is what it was exported as; the flag only says so
        for part in loaded.module.modules():
            part.training = False
    return replace(
        loaded,
        preprocessing=loaded.preprocessing.changed(mean, std, size),
        categories=loaded.categories if categories is None else _names(categories),
    )


def _by_name(name: str, weights: str | Path | None, trust: bool, size: object) -> LoadedModel:
    bundled = importlib.import_module(BUNDLED)
    if name in (*bundled.NETWORKS, bundled.SEGMENTATION):
        module = _with_weights(bundled.network(name), weights, trust)
        return LoadedModel(name, module, bundled.preprocessing(), bundled.categories(name))
    if name.startswith("timm:"):
        return _of_timm(name, weights, trust, size)
    from torchvision import models as zoo

    known, _, published = name.partition(":")
    if known.lower() in zoo.list_models():
        return _of_torchvision(known.lower(), published, weights, trust)
    if Path(name).suffix == ".onnx":
        return _of_onnx(name, weights)
    if Path(name).is_file() or Path(name).suffix in FILE_SUFFIXES:
        module = _with_weights(read_module(name, trust), weights, trust)
        return LoadedModel(name, module, _guessed(module), None)
    if ":" in name:
        module = _with_weights(_from_factory(name), weights, trust)
        return LoadedModel(name, module, _guessed(module), None)
    known_to_zoo = [known for known in zoo.list_models() if not known.startswith("quantized_")]
    names = [*bundled.NETWORKS, bundled.SEGMENTATION, *known_to_zoo]
    if importlib.util.find_spec("timm") is not None:
        timm = importlib.import_module("timm")
        if timm.is_model(name):
            return _of_timm(name, weights, trust, size)
        names += timm.list_models()
    raise LookupError(f"no model {name!r}{_suggestion(name, names)}; {KINDS}")


def _of_torchvision(name: str, published: str, weights: str | Path | None, trust: bool) -> LoadedModel:
    from torchvision import models as zoo

    if name.startswith("quantized_"):
        whole = name.removeprefix("quantized_")
        raise ValueError(f"model {name!r} is quantized, and integers have no gradients; use {whole!r}")
    offered = zoo.get_model_weights(name)
    if isinstance(weights, str) and weights.removeprefix(f"{offered.__name__}.") in offered.__members__:
        published, weights = weights.removeprefix(f"{offered.__name__}."), None
    if published not in ("", *offered.__members__):
        raise LookupError(f"no weights {published!r} of {name}; torchvision has {', '.join(offered.__members__)}")
    chosen = offered[published or "DEFAULT"]
    preprocessing = Preprocessing.from_torchvision(chosen.transforms())
    categories = tuple(chosen.meta.get("categories", ())) or None
    if weights is None:
        try:
            module = zoo.get_model(name, weights=chosen, progress=sys.stderr is not None and sys.stderr.isatty())
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as reason:
            raise ConnectionError(
                f"the weights {chosen} of {name} did not arrive from {chosen.url} ({one_line(reason)}); "
                "get that file in another way and pass it with --weights FILE (in Python weights=)"
            ) from reason
        return LoadedModel(name, module, preprocessing, categories)
    trained = str(weights) not in UNTRAINED
    if trained and not Path(weights).exists():
        raise FileNotFoundError(
            f"no weights {str(weights)!r} of {name}: neither a file nor 'random' nor one of "
            + ", ".join(offered.__members__)
        )
    module = _built(name, trained)
    if trained:
        fill(module, read_weights(weights, trust), weights, AUXILIARY)
    return LoadedModel(name, module, preprocessing, categories if trained else None)


def _built(name: str, trained: bool) -> nn.Module:
    """The network without weights, of the form that the published weights need if it is to be trained."""
    from torchvision import models as zoo

    builder = zoo.get_model_builder(name)
    settings: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(builder).parameters:
        if trained and ".detection." in builder.__module__:
            raise ValueError(
                f"torchvision builds the detector {name!r} differently for some of its weights, so a file "
                "is not loaded into it; build it in your own code and give that: package.module:factory"
            )
        settings["weights_backbone"] = None  # or torchvision would download them
    if name in ("googlenet", "inception_v3"):
        # these two were trained elsewhere, on pictures in -1..1, and change their inputs to that
        settings |= {"aux_logits": False, "init_weights": False, "transform_input": trained}
    module: nn.Module = builder(**settings)
    return module


def _of_timm(name: str, weights: str | Path | None, trust: bool, size: object) -> LoadedModel:
    if importlib.util.find_spec("timm") is None:
        raise ModuleNotFoundError(f"model {name!r} needs timm, which is not installed: pip install timm")
    timm = importlib.import_module("timm")
    bare = name.removeprefix("timm:")
    if not timm.is_model(bare):
        raise LookupError(f"timm has no model {bare!r}{_suggestion(bare, timm.list_models())}")
    try:
        module = timm.create_model(bare, pretrained=weights is None)
    except Exception as reason:  # the hub's client has errors of its own for being offline
        raise ConnectionError(
            f"timm could not load {bare!r} ({one_line(reason)}); if its weights did not arrive, get them in "
            "another way and pass --weights FILE (in Python weights=)"
        ) from reason
    config = importlib.import_module("timm.data").resolve_model_data_config(module)
    if size is not None:  # a square from the centre is asked for, whatever timm would do
        side = min(config["input_size"][-2:])
        config |= {"crop_mode": "center", "input_size": (len(config["mean"]), side, side)}
    preprocessing = Preprocessing.from_timm(config)
    module = _with_weights(module, weights, trust)
    named = module.num_classes == 1000 and str(weights) not in UNTRAINED  # timm's thousand are ImageNet's
    return LoadedModel(name, module, preprocessing, _imagenet_names() if named else None)


def _of_onnx(name: str, weights: str | Path | None) -> LoadedModel:
    """An ONNX file as a black box, for pictures of the size that it says."""
    if weights is not None:
        raise ValueError(f"model '{name}' is an ONNX file, which holds its weights; leave the weights out")
    if not Path(name).is_file():
        raise FileNotFoundError(f"no model file '{name}'")
    if importlib.util.find_spec("onnxruntime") is None:
        raise ModuleNotFoundError(f"model '{name}' needs onnxruntime, which is not installed: pip install onnxruntime")
    runtime = importlib.import_module("onnxruntime")
    try:
        session = runtime.InferenceSession(name, providers=["CPUExecutionProvider"])
    except Exception as reason:  # the runtime has errors of its own
        raise ValueError(f"model '{name}' can't be read as an ONNX file ({one_line(reason)})") from reason
    shape = [size if isinstance(size, int) else 0 for size in session.get_inputs()[0].shape]
    channels = shape[1] if len(shape) > 1 else 3
    preprocessing = IMAGENET if channels in (0, 3) else Preprocessing((0.0,) * channels, (1.0,) * channels)
    if len(shape) == 4 and shape[2] and shape[3]:
        preprocessing = preprocessing.changed(size=(shape[2], shape[3]))
    return LoadedModel(name, black_box(session), preprocessing, None)


def _from_factory(name: str) -> nn.Module:
    """What a factory in the user's own code makes; the working directory is searched, as by python -m."""
    place, _, attribute = name.partition(":")
    with _working_directory_importable():
        try:
            value: Any = importlib.import_module(place)
        except ModuleNotFoundError as reason:
            if not reason.name or not f"{place}.".startswith(f"{reason.name}."):
                raise  # the module is there, and something it imports is not
            raise ModuleNotFoundError(f"no module {reason.name!r} for model {name!r}; {KINDS}") from reason
        for part in attribute.split("."):
            if not hasattr(value, part):
                raise LookupError(f"{place} has no {attribute!r}{_suggestion(part, dir(value))} for model {name!r}")
            value = getattr(value, part)
        made = value if isinstance(value, nn.Module) or not callable(value) else value()
    if not isinstance(made, nn.Module):
        raise TypeError(f"model {name!r} gives {type(made).__name__}; the factory must return a torch.nn.Module")
    return made


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _with_weights(module: nn.Module, weights: str | Path | None, trust: bool) -> nn.Module:
    if weights is not None and str(weights) not in UNTRAINED:
        load_weights(module, weights, trust)
    return module


def _guessed(module: nn.Module) -> Preprocessing:
    """ImageNet's for networks of colour pictures; for others the values as they are, on as many channels."""
    for part in module.modules():
        if isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and part.in_channels > 0:
            if isinstance(part, nn.Conv2d) and part.in_channels == 3:
                break
            return Preprocessing((0.0,) * part.in_channels, (1.0,) * part.in_channels)
    return IMAGENET


def _imagenet_names() -> tuple[str, ...]:
    from torchvision.models import ResNet50_Weights

    return tuple(ResNet50_Weights.DEFAULT.meta["categories"])


def _names(categories: str | Path | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(categories, (str, Path)):
        return tuple(map(str, categories))
    try:
        lines = Path(categories).read_text(encoding="utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as reason:
        raise ValueError(f"categories '{categories}' are not text in UTF-8") from reason
    except FileNotFoundError as reason:
        raise FileNotFoundError(f"no file '{categories}' of categories; write one name per line") from reason
    if not lines:
        raise ValueError(f"categories '{categories}' are empty; write one name per line, in the order of the outputs")
    return tuple(line.strip() for line in lines)


def _suggestion(name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names, 1)
    return f" (did you mean {near[0]!r}?)" if near else ""
