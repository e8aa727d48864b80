"""Options that several commands share, each declared once. Nothing here loads torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from inspect import Parameter
from typing import Annotated, Any, get_type_hints

import typer

DTYPES = ("float32", "float64", "float16", "bfloat16")
MODEL: dict[str, Any] = {"rich_help_panel": "Model"}
ANSWER: dict[str, Any] = {"rich_help_panel": "Question and answer"}
WORK: dict[str, Any] = {"rich_help_panel": "Work"}

Pictures = Annotated[
    list[str],
    typer.Argument(
        metavar="PICTURES...",
        help="Files, folders of pictures, or .npy arrays (C, ...) as the network takes them.",
        show_default=False,
    ),
]
Weights = Annotated[str | None, typer.Option(help="A file of weights, or torchvision's by name.", **MODEL)]
TrustModel = Annotated[bool, typer.Option("--trust-model", help="Open a file that can run code.", **MODEL)]
Methods = Annotated[
    list[str] | None,
    typer.Option("--method", "-m", help="Repeatable, or with commas between. Default: grad_cam.", **ANSWER),
]
Target = Annotated[
    str | None,
    typer.Option(
        help="A class, by number or name. Default: the predicted one. Of regression: higher, lower, near:0.5."
        " Inside the network: channel:LAYER:5.",
        **ANSWER,
    ),
]
Layer = Annotated[
    str | None, typer.Option(help="By name or by number; see cnnviz layers. Default: the last one.", **ANSWER)
]
Render = Annotated[str | None, typer.Option(help="How it is drawn. Default: as suits the method.", **ANSWER)]
Show = Annotated[bool, typer.Option("--show", help="Open what was written.", **ANSWER)]
Seed = Annotated[int, typer.Option(help="Of all randomness.", **WORK)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but failures.", **WORK)]


class QuestionOptions:
    """What is explained, beside the target."""

    before_softmax: Annotated[
        bool, typer.Option("--before-softmax", help="Explain what goes into the network's softmax.", **ANSWER)
    ] = False


class FileOptions:
    """Where the pictures are written."""

    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE|FOLDER/",
            help="A folder takes a file for each picture and method; one file takes all in a grid; .safetensors keeps"
            " the values. Files that are there are replaced. Default: the current folder.",
            **ANSWER,
        ),
    ] = None  # fmt: skip
    show: Show = False


class ModelOptions:
    """Which network, and where it runs; :func:`cnnviz.cli.prepared.loaded` reads them."""

    model: Annotated[
        str, typer.Option(help="demo, a name of torchvision or timm, or package.module:factory.", **MODEL)
    ] = "demo"
    weights: Weights = None
    trust_model: TrustModel = False
    mean: Annotated[str | None, typer.Option(help="For each channel, on values in 0..1: 0.5,0.5,0.5.", **MODEL)] = None
    std: Annotated[str | None, typer.Option(help="For each channel: 0.2,0.2,0.2.", **MODEL)] = None
    size: Annotated[
        str | None, typer.Option(help="Of the network's input: 224, or 224x320 (height x width).", **MODEL)
    ] = None
    categories: Annotated[str | None, typer.Option(help="A text file with a class name in each line.", **MODEL)] = None
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is one.", **WORK)] = "auto"
    dtype: Annotated[str, typer.Option(help=", ".join(DTYPES) + ".", **WORK)] = "float32"


class SynthesisWorkOptions:
    """How inputs are made."""

    seed: Seed = 0
    quiet: Quiet = False


class WorkOptions:
    """How pictures are worked through."""

    seed: Seed = 0
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="For inputs evaluated together: 512MB.", **WORK)
    ] = None
    batch: Annotated[int, typer.Option(min=1, help="How many pictures are explained at once.", **WORK)] = 8
    quiet: Quiet = False


class SpeedOptions:
    """How explanations are computed faster; :func:`cnnviz.explain` takes them as they are."""

    precision: Annotated[
        str, typer.Option(help="In which the network computes: float32, bfloat16 or float16.", **WORK)
    ] = "float32"
    fold: Annotated[bool, typer.Option("--fold", help="Put batch norms into the convolutions before them.", **WORK)] = (
        False
    )
    compile: Annotated[bool, typer.Option("--compile", help="Compile passes that need no gradient.", **WORK)] = False


EXPLAIN = (QuestionOptions, FileOptions, ModelOptions, WorkOptions)
"""What every command has that writes pictures of explanations."""


def sharing(*groups: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options of these classes too. It takes them together, as the mapping ``options``."""
    shared = {
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

        @wraps(command)
        def run(**values: Any) -> Any:
            options = {name: values[name] for name in shared}
            return command(**{name: values[name] for name in own}, options=options)

        parameters = own | shared
        run.__signature__ = inspect.Signature([*parameters.values()])  # type: ignore[attr-defined]  # what typer reads
        run.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
        return run

    return decorate
