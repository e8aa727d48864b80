"""The commands that explain pictures. Their options are read from the context, for both in one place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnviz.cli import quantities
from cnnviz.cli.failures import FAILED

if TYPE_CHECKING:
    import torch

    from cnnviz.models import LoadedModel
    from cnnviz.protocols import Renderer
    from cnnviz.registry import Method

DTYPES = ("float32", "float64", "float16", "bfloat16")
_MODEL, _ANSWER, _WORK = ({"rich_help_panel": panel} for panel in ("Model", "Question and answer", "Work"))

Pictures = Annotated[
    list[str],
    typer.Argument(
        metavar="PICTURES...",
        help="Files, folders of pictures, or .npy arrays (C, ...) as the network takes them.",
        show_default=False,
    ),
]
Model = Annotated[str, typer.Option(help="demo, a name of torchvision or timm, or package.module:factory.", **_MODEL)]
Weights = Annotated[str | None, typer.Option(help="A file of weights, or torchvision's by name.", **_MODEL)]
TrustModel = Annotated[bool, typer.Option("--trust-model", help="Open a file that can run code.", **_MODEL)]
Mean = Annotated[str | None, typer.Option(help="For each channel, on values in 0..1: 0.5,0.5,0.5.", **_MODEL)]
Std = Annotated[str | None, typer.Option(help="For each channel: 0.2,0.2,0.2.", **_MODEL)]
Size = Annotated[str | None, typer.Option(help="Of the network's input: 224, or 224x320 (height x width).", **_MODEL)]
Categories = Annotated[str | None, typer.Option(help="A text file with a class name in each line.", **_MODEL)]
Methods = Annotated[
    list[str] | None,
    typer.Option("--method", "-m", help="Repeatable, or with commas between. Default: grad_cam.", **_ANSWER),
]
Target = Annotated[str | None, typer.Option(help="A class, by number or name. Default: the predicted one.", **_ANSWER)]
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
Device = Annotated[str, typer.Option(help="cpu, cuda, or auto: cuda where there is one.", **_WORK)]
Dtype = Annotated[str, typer.Option(help=", ".join(DTYPES) + ".", **_WORK)]
Seed = Annotated[int, typer.Option(help="Of all randomness.", **_WORK)]
Memory = Annotated[str | None, typer.Option(metavar="SIZE", help="For inputs evaluated together: 512MB.", **_WORK)]
Batch = Annotated[int, typer.Option(min=1, help="How many pictures are explained at once.", **_WORK)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but failures.", **_WORK)]


def explain(
    context: typer.Context,
    pictures: Pictures,
    model: Model = "demo",
    weights: Weights = None,
    trust_model: TrustModel = False,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    categories: Categories = None,
    method: Methods = None,
    target: Target = None,
    layer: Layer = None,
    render: Render = None,
    output: Output = None,
    show: Show = False,
    device: Device = "auto",
    dtype: Dtype = "float32",
    seed: Seed = 0,
    memory: Memory = None,
    batch: Batch = 8,
    quiet: Quiet = False,
) -> int:
    """Explain pictures: where is what speaks for the class, or against it?

    Every setting of a method or of a renderer is an option too: --steps 100, --of guided_backprop, --opacity 0.4,
    --relu, --no-relu. [bold]cnnviz methods NAME[/bold] lists them.
    """
    names = [name.strip() for each in method or ["grad_cam"] for name in each.split(",")]
    return _run(context, list(dict.fromkeys(names)), {"layer": layer})


def confusion(
    context: typer.Context,
    pictures: Pictures,
    target: Annotated[str, typer.Option(help="The true class, by number or name.", **_ANSWER)],
    of: Annotated[str, typer.Option(help="The method whose values are split.", **_ANSWER)] = "grad_cam",
    model: Model = "demo",
    weights: Weights = None,
    trust_model: TrustModel = False,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    categories: Categories = None,
    layer: Layer = None,
    render: Render = None,
    output: Output = None,
    show: Show = False,
    device: Device = "auto",
    dtype: Dtype = "float32",
    seed: Seed = 0,
    memory: Memory = None,
    batch: Batch = 8,
    quiet: Quiet = False,
) -> int:
    """Draw the saliency confusion matrix: what speaks against and for the true class, and the predicted one.

    The settings of --of and of the renderer are options too, such as --layer 3 or --opacity 0.4.
    """
    return _run(context, ["saliency_confusion"], {"layer": layer, "of": of})


def _run(context: typer.Context, names: Sequence[str], given: dict[str, str | None]) -> int:
    from cnnviz.cli.answers import Question, answered, found_pictures, status
    from cnnviz.cli.results import Drawing, destination
    from cnnviz.cli.settings import formula, named_methods, separated
    from cnnviz.pictures import read_input

    options = context.params
    declared = [name for parameter in context.command.params for name in parameter.opts]
    chosen = [part for name, text in given.items() if text is not None for part in (f"--{name}", text)]
    tokens = [*options["pictures"], *chosen]
    methods = named_methods(names, tokens)
    paths, settings = separated(tokens, methods, _renderers(options["render"]), declared)
    pictures, missing = found_pictures(paths)
    if not pictures:
        return FAILED
    place = destination(options["output"], pictures, names, options["show"])
    load = cache(lambda: _loaded(options))
    formulas = {name: formula(name, settings, lambda path: read_input(path, load().preprocessing)) for name in names}
    question = Question(load(), formulas, options["target"], options["seed"], quantities.byte_count(options["memory"]))
    drawing = Drawing(options["render"], settings, frozenset(name for each in methods for name in each.settings))
    work = {name: options[name] for name in ("batch", "quiet", "show")}
    failed = answered(question, pictures, drawing, place, **work)
    return status(len(pictures) + missing, failed + missing)


def _renderers(asked: str | None) -> list[Method[Renderer]]:
    """The renderer asked for; otherwise all that load, for which one a method wants shows only in its answer."""
    from cnnviz.registry import PluginError, renderers

    if asked is not None:
        return [renderers[asked]]
    found = []
    for name in renderers:
        try:
            found.append(renderers[name])
        except PluginError:
            continue  # doctor tells; nobody asked for this one
    return found


def _loaded(options: dict[str, Any]) -> LoadedModel:
    import torch

    from cnnviz.models import load_model

    loaded = load_model(
        options["model"],
        weights=options["weights"],
        trust_model=options["trust_model"],
        mean=quantities.numbers(options["mean"], "--mean"),
        std=quantities.numbers(options["std"], "--std"),
        size=quantities.size(options["size"]),
        categories=options["categories"],
    )
    if options["dtype"] not in DTYPES:
        raise ValueError(f"there is no --dtype {options['dtype']}; there are {', '.join(DTYPES)}")
    loaded.module.to(_device(options["device"]), getattr(torch, options["dtype"]))
    return loaded


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
