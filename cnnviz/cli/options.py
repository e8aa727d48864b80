"""Options that several commands share, each declared once. Nothing here loads torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from cnnviz.cli.completion import MODELS, among, attribution_names, renderer_names

DTYPES = ("float32", "float64", "float16", "bfloat16")


def _of_panel(title: str) -> Callable[..., Any]:
    """Declares options that stand in this panel of the help: by their help, then their names if these are special."""

    def option(help: str | None, *names: str, **more: Any) -> Any:
        return typer.Option(*names, help=help, rich_help_panel=title, **more)

    return option


_FORMS = (
    "Other targets: higher, lower or near:0.5, of a network that predicts a number; against:cat,dog, why the first and"
    " not the second; region:cat, of segmentation; box:3 or box:person, of detection; channel:LAYER:5, inside."
)
answer_option = _of_panel("Question and answer")
model_option = _of_panel("Model")
work_option = _of_panel("Work")

Pictures = Annotated[
    list[str],
    typer.Argument(
        metavar="PICTURES...",
        help="Files, folders of pictures, or .npy arrays (C, ...) as the network takes them; - is standard input.",
        show_default=False,
    ),
]
Weights = Annotated[
    str | None,
    model_option(
        "A file of weights, a folder or an index of several, or the name of torchvision's, such as IMAGENET1K_V2.",
        metavar="FILE|FOLDER|NAME",
    ),
]
NumClasses = Annotated[
    int | None,
    model_option("How many outputs the network has. Default: as many as the weights.", min=1, metavar="NUMBER"),
]
Key = Annotated[
    str | None,
    model_option(
        "The entry of the file that holds the weights: state_dict_ema. Default: the one that fits.", metavar="NAME"
    ),
]
Prefix = Annotated[
    str | None,
    model_option("What stands before the weights' names: backbone. Default: the one that fits.", metavar="NAME"),
]
TrustModel = Annotated[
    bool,
    model_option("Open a file of --model or --weights that may run code: only of people you trust.", "--trust-model"),
]
Methods = Annotated[
    list[str] | None,
    answer_option(
        "The method that explains; cnnviz methods lists them. Or a formula of methods:"
        " 'guided_backprop() * upsample(grad_cam())'. Repeatable, or with commas between. Default: grad_cam.",
        "--method",
        "-m",
        metavar="NAME",
        autocompletion=attribution_names,
    ),
]
Target = Annotated[
    str | None,
    answer_option(f"The class to explain, by number or name. Default: the predicted class. {_FORMS}", metavar="CLASS"),
]
TargetTable = Annotated[
    Path | None,
    answer_option("A table file,target with a class for each picture, by number or name.", metavar="FILE.csv"),
]
TargetList = Annotated[
    list[str] | None,
    answer_option(
        "The class to explain, by number or name; repeatable, or with commas between. Default: the predicted class."
        f" {_FORMS}",
        "--target",
        metavar="CLASS",
    ),
]
Layer = Annotated[
    str | None,
    answer_option(
        "The layer of the maps, by name or number; cnnviz layers lists them. The maps of several, layer2,layer3, become"
        " one. Default: the last layer that has maps.",
        metavar="NAME",
    ),
]
ChannelLayer = Annotated[
    str | None,
    answer_option(
        "The layer of the channels, by name or number; cnnviz layers lists them. Default: the last one that has maps.",
        "--layer",
        metavar="NAME",
    ),
]
Layers = Annotated[
    list[str] | None,
    answer_option(
        "The layer of the maps, by name or number; cnnviz layers lists them. Repeatable, or with commas between; --fuse"
        " says how the maps of several layers become one. Default: the last layer that has maps.",
        "--layer",
        metavar="NAME",
    ),
]
Render = Annotated[
    str | None,
    answer_option(
        "The renderer that draws; cnnviz methods lists them. Default: the one that suits the method.",
        metavar="NAME",
        autocompletion=renderer_names,
    ),
]
Show = Annotated[bool, answer_option("Open what was written, in the viewer of the desktop.", "--show")]
Seed = Annotated[int, work_option("The seed of all random numbers.", metavar="NUMBER")]


def _limited(context: typer.Context, text: str | None) -> str | None:
    """Hold the limit while the command runs."""
    if text is not None and not context.resilient_parsing:
        from cnnviz.cli.value_parsing import count
        from cnnviz.images.limits import pixel_limit

        context.with_resource(pixel_limit(count(text, "--limit")))
    return text


Limit = Annotated[
    str | None,
    work_option(
        "The most pixels of a picture that is read, or places of an array: 200M. Default: 64M.",
        callback=_limited,
        metavar="PIXELS",
    ),
]
Quiet = Annotated[bool, work_option("Print nothing but failures.", "--quiet", "-q")]


class QuestionOptions:
    """What is explained, beside the target."""

    before_softmax: Annotated[
        bool, answer_option("Explain what goes into the network's softmax.", "--before-softmax")
    ] = False
    before_sigmoid: Annotated[
        bool, answer_option("Explain what goes into the network's sigmoid.", "--before-sigmoid")
    ] = False


class FindOptions:
    """Which pictures of a folder are meant."""

    recursive: Annotated[
        bool, work_option("Folders inside of folders too; the answers have the same folders.", "--recursive", "-r")
    ] = False


class OverwriteOptions:
    """What happens to a file that stands where an answer goes; :func:`cnnviz.cli.places.settle` reads it."""

    overwrite: Annotated[bool, answer_option("Replace answers that are there already.", "--overwrite")] = False


class FileOptions(OverwriteOptions):
    """Where the pictures are written."""

    output: Annotated[
        str | None,
        answer_option(
            "A folder takes a file for each picture and method; one file takes all in a grid; .safetensors keeps"
            " the values; - is standard output. Default: a new folder, cnnviz-COMMAND.",
            "--output",
            "-o",
            metavar="FILE|FOLDER/|-",
        ),
    ] = None
    skip_existing: Annotated[
        bool, answer_option("Keep answers that are there already, and make the others.", "--skip-existing")
    ] = False
    show: Show = False


class PlaceOptions:
    """On which picture an answer is drawn; :func:`cnnviz.Explanation.render` tells."""

    at: Annotated[
        Literal["input", "original"] | None,
        answer_option(
            "original: the whole picture at its own size. input: what the network sees of it. Default: original, where"
            " the renderer draws over the picture."
        ),
    ] = None


class ModelOptions:
    """Which network, and where it runs; :func:`cnnviz.cli.prepared.loaded` reads them."""

    model: Annotated[
        str,
        model_option(
            "The network: demo, a name of torchvision or timm, package.module:factory, or a file.",
            metavar="NETWORK",
            autocompletion=among(MODELS),
        ),
    ] = "demo"
    weights: Weights = None
    num_classes: NumClasses = None
    key: Key = None
    prefix: Prefix = None
    trust_model: TrustModel = False
    mean: Annotated[
        str | None,
        model_option(
            "What is subtracted from each channel of a picture, whose values are 0 to 1: 0.5,0.5,0.5.",
            metavar="NUMBERS",
        ),
    ] = None
    std: Annotated[
        str | None, model_option("What each channel is divided by then: 0.2,0.2,0.2.", metavar="NUMBERS")
    ] = None
    size: Annotated[
        str | None, model_option("The size of the network's input: 224, or 224x320 (height x width).", metavar="SIZE")
    ] = None
    preprocess: Annotated[
        Literal["crop", "whole"],
        model_option("whole: pictures are not cropped, for networks that take inputs of any size."),
    ] = "crop"
    categories: Annotated[
        str | None,
        model_option(
            "A file of class names: one in each line, or .json, .csv or .yaml (a list, or numbers and names)."
        ),
    ] = None
    device: Annotated[
        str,
        work_option(
            "Where the network runs: cpu, cuda, cuda:1, mps, or auto, the fastest that is there.",
            metavar="DEVICE",
            autocompletion=among(("auto", "cpu", "cuda", "mps")),
        ),
    ] = "auto"
    dtype: Annotated[
        str,
        work_option(
            f"The type of the network's numbers: {', '.join(DTYPES)}.", metavar="TYPE", autocompletion=among(DTYPES)
        ),
    ] = "float32"


class SynthesisWorkOptions:
    """How inputs are made."""

    seed: Seed = 0
    limit: Limit = None
    quiet: Quiet = False


class WorkOptions:
    """How pictures are worked through."""

    seed: Seed = 0
    memory: Annotated[
        str | None,
        work_option(
            "What inputs that are computed together may take, such as 512MB. Default: a share of what is free.",
            metavar="SIZE",
        ),
    ] = None
    batch: Annotated[int, work_option("How many pictures are explained at once.", min=1, metavar="NUMBER")] = 8
    limit: Limit = None
    jobs: Annotated[
        int, work_option("How many threads read pictures while the network works.", min=1, metavar="NUMBER")
    ] = 4
    quiet: Quiet = False


class VerboseOptions:
    """What is told beside the answers; :class:`cnnviz.cli.verbose.Watch` tells it."""

    verbose: Annotated[
        bool,
        work_option("Tell on standard error what is computed: layer, size, device, passes, time.", "--verbose", "-v"),
    ] = False


class SpeedOptions:
    """How explanations are computed faster; :func:`cnnviz.explain` takes them as they are."""

    precision: Annotated[
        str | None,
        work_option("In which the network computes: float32, tf32, bfloat16 or float16. Default: as torch is set."),
    ] = None
    fold: Annotated[bool, work_option("Put batch norms into the convolutions before them.", "--fold")] = False
    compile: Annotated[bool, work_option("Compile passes that need no gradient.", "--compile")] = False


LOOK = (QuestionOptions, ModelOptions, WorkOptions, FindOptions)
"""What every command has that asks a network about many pictures."""
EXPLAIN = (*LOOK, VerboseOptions)
"""What every command has that explains pictures batch by batch."""


def sharing(*groups: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options of these classes too. It takes them together, as the mapping ``options``.

    An option that the command declares itself stays its own.
    """
    all_shared = {
        name: Parameter(name, Parameter.KEYWORD_ONLY, default=getattr(group, name), annotation=kind)
        for group in groups
        for name, kind in get_type_hints(group, include_extras=True).items()
    }

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        hints = get_type_hints(command, include_extras=True)
        own = {
            name: parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[name])
            for name, parameter in inspect.signature(command).parameters.items()
            if name != "options"
        }

        shared = {name: parameter for name, parameter in all_shared.items() if name not in own}

        @wraps(command)
        def run(**values: Any) -> Any:
            options = {name: values[name] for name in shared}
            return command(**{name: values[name] for name in own}, options=options)

        parameters = own | shared
        run.__signature__ = inspect.Signature([*parameters.values()])  # type: ignore[attr-defined]  # what typer reads
        run.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
        return run

    return decorate
