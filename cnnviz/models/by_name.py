"""Networks by their names: the bundled ones, torchvision's, timm's, ONNX files, those of files and of own code."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import nn

from cnnviz.engine.black_box import black_box
from cnnviz.images.preprocessing import IMAGENET, Preprocessing
from cnnviz.images.reading import one_line
from cnnviz.models.weights import Filled, WeightsFile, filled, read_module

BUNDLED = "cnnviz.demo"
"""Imported by its name: the networks there are made of the segmentation network here."""
UNTRAINED = ("random", "none")
FILE_SUFFIXES = (".pt", ".pth", ".pt2", ".pkl", ".bin", ".ckpt", ".safetensors", ".torchscript")
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.", "aux_classifier.")
"""Prefixes of heads for training alone, which are not built for weights of a file."""
KINDS = "a model is 'demo', a name of torchvision or timm, or 'package.module:factory'"


@dataclass(frozen=True)
class Asked:
    """What is asked of a model beside its name."""

    weights: str | Path | None
    trust_model: bool
    num_classes: int | None
    key: str | None
    prefix: str | None

    @property
    def untrained(self) -> bool:
        return self.weights is not None and str(self.weights) in UNTRAINED

    @property
    def file(self) -> WeightsFile | None:
        """The file of weights, None for published ones or none."""
        if self.weights is None or self.untrained:
            return None
        return WeightsFile(self.weights, self.trust_model, self.key, self.prefix)

    def check_choice(self, name: str) -> None:
        """Raises ValueError for a key or prefix where there is no file to choose in."""
        in_file = self.file is not None or (self.prefix is None and Path(name).is_file())
        if not in_file and (self.key, self.prefix) != (None, None):
            raise ValueError("--key and --prefix (in Python key= and prefix=) choose in a file of weights; name one")


@dataclass(frozen=True, eq=False)
class Found:
    """A network, and what is known of it; as of :class:`cnnviz.LoadedModel`."""

    module: nn.Module
    preprocessing: Preprocessing
    categories: tuple[str, ...] | None
    num_classes: int | None
    notes: tuple[str, ...] = ()


def check_num_classes(name: str, outputs: int | None, num_classes: int) -> None:
    """Raises ValueError for a network that has another number of outputs than was asked for."""
    if outputs != num_classes:
        raise ValueError(
            f"model {name!r} has {outputs or 'its own number of'} outputs, and num_classes is {num_classes};"
            " give weights that have so many (--weights FILE, in Python weights=)"
        )


def found(name: str, asked: Asked, size: object) -> Found:
    """The network of that name, not yet in eval mode. Raises as :func:`cnnviz.load_model` says."""
    bundled = importlib.import_module(BUNDLED)
    if name in bundled.BUNDLED:
        return _of_demo(name, asked)
    if name.startswith("timm:"):
        return _of_timm(name, asked, size)
    from torchvision import models as zoo

    known, _, published = name.partition(":")
    if known.lower() in zoo.list_models():
        return _of_torchvision(known.lower(), published, asked)
    if Path(name).suffix == ".onnx":
        return _of_onnx(name, asked)
    if Path(name).is_file() or Path(name).suffix in FILE_SUFFIXES:
        return _of_file(name, asked)
    if ":" in name:
        return _of_factory(name, asked)
    known_to_zoo = [known for known in zoo.list_models() if not known.startswith("quantized_")]
    names = [*bundled.BUNDLED, *known_to_zoo]
    if importlib.util.find_spec("timm") is not None:
        timm = importlib.import_module("timm")
        if timm.is_model(name):
            return _of_timm(name, asked, size)
        names += timm.list_models()
    raise LookupError(f"no model {name!r}{_suggestion(name, names)}; {KINDS}")


def _of_demo(name: str, asked: Asked) -> Found:
    bundled = importlib.import_module(BUNDLED)
    categories: tuple[str, ...] = bundled.categories(name)
    if asked.weights is None:
        return Found(bundled.network(name), bundled.preprocessing(), categories, len(categories))
    made = _filled(lambda classes: bundled.untrained(name, classes), asked)
    outputs = made.outputs or asked.num_classes or len(categories)
    known = not asked.untrained and outputs == len(categories)
    return Found(made.module, bundled.preprocessing(), categories if known else None, outputs, made.notes)


def _of_torchvision(name: str, published: str, asked: Asked) -> Found:
    from torchvision import models as zoo

    if name.startswith("quantized_"):
        whole = name.removeprefix("quantized_")
        raise ValueError(f"model {name!r} is quantized, and integers have no gradients; use {whole!r}")
    weights, offered = asked.weights, zoo.get_model_weights(name)
    if isinstance(weights, str) and weights.removeprefix(f"{offered.__name__}.") in offered.__members__:
        published, weights = weights.removeprefix(f"{offered.__name__}."), None
        replace(asked, weights=None).check_choice(name)
    if published not in ("", *offered.__members__):
        raise LookupError(f"no weights {published!r} of {name}; torchvision has {', '.join(offered.__members__)}")
    chosen = offered[published or "DEFAULT"]
    preprocessing = Preprocessing.from_torchvision(chosen.transforms())
    categories = tuple(chosen.meta.get("categories", ())) or None
    usual = None if categories is None else len(categories)
    if weights is None:
        if asked.num_classes is not None:
            check_num_classes(name, usual, asked.num_classes)  # before anything is downloaded
        try:
            module = zoo.get_model(name, weights=chosen, progress=sys.stderr is not None and sys.stderr.isatty())
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as reason:
            raise ConnectionError(
                f"the weights {chosen} of {name} did not arrive from {chosen.url} ({one_line(reason)}); "
                "get that file in another way and pass it with --weights FILE (in Python weights=)"
            ) from reason
        return Found(module, preprocessing, categories, usual)
    if not asked.untrained and not Path(weights).exists():
        raise FileNotFoundError(
            f"no weights {str(weights)!r} of {name}: neither a file nor 'random' nor one of "
            + ", ".join(offered.__members__)
        )
    made = _filled(lambda classes: _built(name, not asked.untrained, classes), asked, AUXILIARY)
    outputs = made.outputs or asked.num_classes or usual
    known = not asked.untrained and outputs == usual
    return Found(made.module, preprocessing, categories if known else None, outputs, made.notes)


def _built(name: str, trained: bool, classes: int | None) -> nn.Module:
    """The network without weights, of the form that the published weights need if it is to be trained."""
    from torchvision import models as zoo

    builder = zoo.get_model_builder(name)
    settings: dict[str, Any] = {"weights": None} | ({} if classes is None else {"num_classes": classes})
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


def _of_timm(name: str, asked: Asked, size: object) -> Found:
    if importlib.util.find_spec("timm") is None:
        raise ModuleNotFoundError(f"model {name!r} needs timm, which is not installed: pip install timm")
    timm = importlib.import_module("timm")
    bare = name.removeprefix("timm:")
    if not timm.is_model(bare):
        raise LookupError(f"timm has no model {bare!r}{_suggestion(bare, timm.list_models())}")

    def build(classes: int | None) -> nn.Module:
        own = asked.weights is None or classes is None
        try:
            made: nn.Module = timm.create_model(
                bare, pretrained=asked.weights is None, **({} if own else {"num_classes": classes})
            )
        except Exception as reason:  # the hub's client has errors of its own for being offline
            raise ConnectionError(
                f"timm could not load {bare!r} ({one_line(reason)}); if its weights did not arrive, get them in "
                "another way and pass --weights FILE (in Python weights=)"
            ) from reason
        return made

    made = _filled(build, asked)
    config = importlib.import_module("timm.data").resolve_model_data_config(made.module)
    if size is not None:  # a square from the centre is asked for, whatever timm would do
        side = min(config["input_size"][-2:])
        config |= {"crop_mode": "center", "input_size": (len(config["mean"]), side, side)}
    preprocessing = Preprocessing.from_timm(config)
    outputs = outputs_of(made.module)
    named = outputs == 1000 and not asked.untrained  # timm's thousand are ImageNet's
    return Found(made.module, preprocessing, _imagenet_names() if named else None, outputs, made.notes)


def _of_file(name: str, asked: Asked) -> Found:
    """A whole network, and other weights for it if they are given."""
    key = asked.key if asked.file is None else None  # or it is a key of the weights
    module, notes = read_module(name, asked.trust_model, key)
    made = Filled(module, ()) if asked.file is None else filled(lambda _: module, asked.file, resizable=False)
    return Found(module, _guessed(module), None, outputs_of(module), (*notes, *made.notes))


def _of_onnx(name: str, asked: Asked) -> Found:
    """An ONNX file as a black box, for pictures of the size that it says."""
    if asked.weights is not None:
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
    scores = session.get_outputs()[0].shape
    outputs = scores[1] if len(scores) > 1 and isinstance(scores[1], int) else None
    return Found(black_box(session), preprocessing, None, outputs)


def _of_factory(name: str, asked: Asked) -> Found:
    made_by = _from_code(name)
    takes = callable(made_by) and not isinstance(made_by, nn.Module) and _takes_classes(made_by)
    if asked.num_classes is not None and not takes:
        raise ValueError(f"model {name!r} takes no num_classes; give its factory an argument of that name")

    def build(classes: int | None) -> nn.Module:
        made = made_by
        if not isinstance(made, nn.Module) and callable(made):
            with _working_directory_importable():
                made = made() if classes is None else made(num_classes=classes)
        if not isinstance(made, nn.Module):
            raise TypeError(f"model {name!r} gives {type(made).__name__}; the factory must return a torch.nn.Module")
        return made

    made = _filled(build, asked, resizable=takes)
    outputs = made.outputs or asked.num_classes or outputs_of(made.module)
    return Found(made.module, _guessed(made.module), None, outputs, made.notes)


def _from_code(name: str) -> Any:
    """What stands under the name in the user's own code; the working directory is searched, as by python -m."""
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
    return value


def _takes_classes(factory: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # of what is not written in Python
        return False
    return "num_classes" in parameters


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _filled(
    build: Callable[[int | None], nn.Module], asked: Asked, spare: tuple[str, ...] = (), resizable: bool = True
) -> Filled:
    """The network, with weights if they are of a file."""
    if asked.file is None:
        return Filled(build(asked.num_classes), ())
    return filled(build, asked.file, num_classes=asked.num_classes, resizable=resizable, spare=spare)


def outputs_of(module: nn.Module) -> int | None:
    """How many outputs the network has, if it says so or plainly ends in a linear layer; else None."""
    said = getattr(module, "num_classes", None)
    if isinstance(said, int) and not isinstance(said, bool):
        return said
    if isinstance(module, nn.Sequential) and len(module):
        return outputs_of(module[-1])
    return module.out_features if isinstance(module, nn.Linear) else None


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


def _suggestion(name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names, 1)
    return f" (did you mean {near[0]!r}?)" if near else ""
