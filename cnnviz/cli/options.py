"""Options that several commands share, each declared once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from inspect import Parameter
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from cnnviz.cli import value_parsing

if TYPE_CHECKING:
    import torch

    from cnnviz.models.loading import LoadedModel

DTYPES = ("float32", "float64", "float16", "bfloat16")
_MODEL: dict[str, Any] = {"rich_help_panel": "Model"}
_ANSWER: dict[str, Any] = {"rich_help_panel": "Question and answer"}
_WORK: dict[str, Any] = {"rich_help_panel": "Work"}

Pictures = Annotated[
    list[str],
    typer.Argument(
        metavar="PICTURES...",
        help="Files, folders of pictures, or .npy arrays (C, ...) as the network takes them.",
        show_default=False,
    ),
]
Weights = Annotated[str | None, typer.Option(help="A file of weights, or torchvision's by name.", **_MODEL)]
TrustModel = Annotated[bool, typer.Option("--trust-model", help="Open a file that can run code.", **_MODEL)]
Methods = Annotated[
    list[str] | None,
    typer.Option("--method", "-m", help="Repeatable, or with commas between. Default: grad_cam.", **_ANSWER),
]
Target = Annotated[
    str | None,
    typer.Option(
        help="A class, by number or name. Default: the predicted one. Of regression: higher, lower, near:0.5."
        " Inside the network: channel:LAYER:5.",
        **_ANSWER,
    ),
]
Layer = Annotated[
    str | None, typer.Option(help="By name or by number; see cnnviz layers. Default: the last one.", **_ANSWER)
]
Render = Annotated[str | None, typer.Option(help="How it is drawn. Default: as suits the method.", **_ANSWER)]
Output = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", metavar="FILE|FOLDER/",
        help="A folder takes a file for each picture and method; one file takes all in a grid; .safetensors keeps"
        " the values. Files that are there are replaced. Default: the current folder.",
        **_ANSWER,
    ),
]  # fmt: skip
Show = Annotated[bool, typer.Option("--show", help="Open what was written.", **_ANSWER)]
Seed = Annotated[int, typer.Option(help="Of all randomness.", **_WORK)]
Memory = Annotated[str | None, typer.Option(metavar="SIZE", help="For inputs evaluated together: 512MB.", **_WORK)]
Batch = Annotated[int, typer.Option(min=1, help="How many pictures are explained at once.", **_WORK)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but failures.", **_WORK)]

Group = Mapping[str, tuple[Any, Any]]
"""Options by name, each its annotation and default."""

MODEL: Group = {
    "model": (
        Annotated[str, typer.Option(help="demo, a name of torchvision or timm, or package.module:factory.", **_MODEL)],
        "demo",
    ),
    "weights": (Weights, None),
    "trust_model": (TrustModel, False),
    "mean": (
        Annotated[str | None, typer.Option(help="For each channel, on values in 0..1: 0.5,0.5,0.5.", **_MODEL)],
        None,
    ),
    "std": (Annotated[str | None, typer.Option(help="For each channel: 0.2,0.2,0.2.", **_MODEL)], None),
    "size": (
        Annotated[str | None, typer.Option(help="Of the network's input: 224, or 224x320 (height x width).", **_MODEL)],
        None,
    ),
    "categories": (
        Annotated[str | None, typer.Option(help="A text file with a class name in each line.", **_MODEL)],
        None,
    ),
    "device": (Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is one.", **_WORK)], "auto"),
    "dtype": (Annotated[str, typer.Option(help=", ".join(DTYPES) + ".", **_WORK)], "float32"),
}
"""Which network, and where it runs; :func:`loaded` reads them."""

QUESTION: Group = {
    "before_softmax": (
        Annotated[
            bool, typer.Option("--before-softmax", help="Explain what goes into the network's softmax.", **_ANSWER)
        ],
        False,
    ),
}
SPEED: Group = {
    "precision": (
        Annotated[str, typer.Option(help="In which the network computes: float32, bfloat16 or float16.", **_WORK)],
        "float32",
    ),
    "fold": (
        Annotated[bool, typer.Option("--fold", help="Put batch norms into the convolutions before them.", **_WORK)],
        False,
    ),
    "compile": (
        Annotated[bool, typer.Option("--compile", help="Compile passes that need no gradient.", **_WORK)],
        False,
    ),
}
"""How answers come sooner; :func:`cnnviz.explain` takes them as they are."""
FILES: Group = {"output": (Output, None), "show": (Show, False)}
WORK: Group = {"seed": (Seed, 0), "memory": (Memory, None), "batch": (Batch, 8), "quiet": (Quiet, False)}


def sharing(*groups: Group) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options of these groups too. It takes them together, as the mapping ``options``."""
    shared = {name: option for group in groups for name, option in group.items()}

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        hints = get_type_hints(command, include_extras=True)
        own = {name: each for name, each in inspect.signature(command).parameters.items() if name != "options"}

        @wraps(command)
        def run(**given: Any) -> Any:
            options = {name: given[name] for name in shared}
            return command(**{name: given[name] for name in own}, options=options)

        kinds = {name: hints[name] for name in own} | {name: kind for name, (kind, _) in shared.items()}
        defaults = {name: each.default for name, each in own.items()} | {
            name: default for name, (_, default) in shared.items()
        }
        asked = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=defaults[name], annotation=kind)
            for name, kind in kinds.items()
        ]
        run.__signature__ = inspect.Signature(asked)  # type: ignore[attr-defined]  # what typer reads
        run.__annotations__ = kinds
        return run

    return decorate


def loaded(options: Mapping[str, Any]) -> LoadedModel:
    """The network that the options of ``MODEL`` name. Raises ValueError for a device or dtype that is not there."""
    import torch

    from cnnviz.models.loading import load_model

    found = load_model(
        options["model"],
        weights=options["weights"],
        trust_model=options["trust_model"],
        mean=value_parsing.numbers(options["mean"], "--mean"),
        std=value_parsing.numbers(options["std"], "--std"),
        size=value_parsing.size(options["size"]),
        categories=options["categories"],
    )
    if options["dtype"] not in DTYPES:
        raise ValueError(f"there is no --dtype {options['dtype']}; there are {', '.join(DTYPES)}")
    found.module.to(_device(options["device"]), getattr(torch, options["dtype"]))
    return found


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"there is no device {name!r}; say cpu, cuda, cuda:1 or auto") from None
    if device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count():
        raise ValueError(f"there is no {name}: {torch.cuda.device_count()} CUDA devices are found; say --device cpu")
    return device
