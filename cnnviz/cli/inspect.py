"""The commands that list what there is: methods, a network's layers, and whether everything installed works."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnviz.cli import value_parsing
from cnnviz.cli.completion import MODELS, all_names, among
from cnnviz.cli.errors import PARTLY, print_line, print_note, printable, reason
from cnnviz.cli.options import Key, NumClasses, Prefix, TrustModel, Weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cnnviz.registry.registry import Method, Registry

Plain = Annotated[bool, typer.Option("--plain", help="Tabs between columns, for scripts.")]


def methods(
    name: Annotated[
        str | None,
        typer.Argument(help="One of them, with its settings.", show_default=False, autocompletion=all_names),
    ] = None,
    plain: Plain = False,
) -> None:
    """List what explains, draws, makes inputs and measures; with NAME its page and its settings."""
    from cnnviz.registry.registry import PluginError, registries

    if name is not None:
        holders = [registry for registry in registries if name in registry]
        if not holders:
            raise LookupError(_unknown(name, [known for registry in registries for known in registry]))
        for registry in holders:
            _page(registry[name], registry, name, plain)
        return
    for registry in registries:
        rows = []
        for method in registry:
            try:
                summary = _plain_text(registry[method].summary)
            except PluginError as error:  # its neighbours work all the same
                cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
                summary = f"does not load: {reason(cause)}"
            kind = [registry.kind] if plain else []
            rows.append([*kind, method, summary, registry.origin(method)])
        _table((registry.kind, "what it is", "from"), rows, plain)


def layers(
    model: Annotated[
        str, typer.Argument(help="As for cnnviz explain --model.", show_default=False, autocompletion=among(MODELS))
    ],
    weights: Weights = None,
    num_classes: NumClasses = None,
    key: Key = None,
    prefix: Prefix = None,
    trust_model: TrustModel = False,
    size: Annotated[
        str | None, typer.Option(help="Of the input, without channels: 224, 224x320, or of any rank.")
    ] = None,
    plain: Plain = False,
) -> None:
    """List a network's layers as --layer takes them: by name or, of convolutions, by number."""
    import torch

    from cnnviz.engine.layers import automatic_layer, convolutions
    from cnnviz.models.loading import load_model

    lengths = value_parsing.lengths(size)
    # names and shapes need no weights, so none are downloaded
    picture_size = value_parsing.size(size) if lengths and len(lengths) < 3 else None
    loaded = load_model(
        model,
        weights=weights or "random",
        num_classes=num_classes,
        key=key,
        prefix=prefix,
        trust_model=trust_model,
        size=picture_size,
    )
    for note in loaded.notes:
        print_note(note)
    preprocessing = loaded.preprocessing
    inputs = torch.zeros(_input_shape(loaded.module, lengths, preprocessing.input_size, len(preprocessing.mean)))
    shapes = _output_shapes(loaded.module, inputs)
    try:
        automatic = automatic_layer(loaded.module, (inputs,))
    except LookupError:
        automatic = ""  # class activation maps find none; gradients need none
    numbers = {name: str(number) for number, name in enumerate(convolutions(loaded.module), 1)}
    marks = {automatic: "automatic"}
    rows = [
        (name, type(module).__name__, shapes.get(name, "does not run"), numbers.get(name, ""), marks.get(name, ""))
        for name, module in loaded.module.named_modules()
        if name
    ]
    _table(("layer", "type", f"of {_shape(inputs)}", "number", ""), rows, plain)


def doctor() -> int:
    """Load everything that is installed, and tell what does not work."""
    import platform
    from importlib.metadata import version

    import torch

    from cnnviz.registry.registry import registries

    for package in ("cnnviz", "torch", "torchvision"):
        print_line(f"{package} {version(package)}")
    print_line(f"Python {platform.python_version()}")
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    print_line(f"CUDA: {', '.join(devices) or 'none'}")
    faults = 0
    for registry in registries:
        errors = registry.faults().values()
        faults += len(errors)
        print_line(f"{len(registry) - len(errors)} {registry.group.rpartition('.')[2]} load")
        for error in errors:
            print_line(f"fault: {reason(error)}")
    return PARTLY if faults else 0


def _page(method: Method[Any], registry: Registry[Any], name: str, plain: bool) -> None:
    from cnnviz.cli.method_options import annotation
    from cnnviz.registry.setting_meanings import meaning_of

    print_line(f"{name}: {registry.kind} from {registry.origin(name)}")
    print_line("")
    for line in (inspect.getdoc(method.build) or "No page.").splitlines():
        print_line(_plain_text(line))
    print_line("")
    rows = []
    for setting, parameter in method.settings.items():
        default = "" if parameter.default is inspect.Parameter.empty else str(parameter.default)
        name = f"--{setting.replace('_', '-')}"
        rows.append((name, annotation(method, setting), default, _plain_text(meaning_of(method, setting))))
    if rows:
        _table(("setting", "type", "default", "what it is"), rows, plain)
    else:
        print_line("It has no settings.")


def _plain_text(text: str) -> str:
    """A line of a docstring without the marks of the documentation: ``code`` and roles such as :func:`name`."""
    return re.sub(r":\w+(?::\w+)*:`~?([^`]*)`", r"\1", text).replace("``", "").replace("`", "")


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], plain: bool) -> None:
    if plain:
        for row in rows:
            print_line("\t".join(" ".join(cell.split()) for cell in row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*titles, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns[:-1]:
        column.overflow = "fold"
    rows = [[printable(cell) for cell in row] for row in rows]
    table.columns[0].min_width = max((len(row[0]) for row in rows), default=0)  # names are for copying
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # what plugins say is no markup
    Console().print(table)


def _unknown(name: str, known: Sequence[str]) -> str:
    from cnnviz.registry.peer_names import asked_back, near_methods

    near, remark = near_methods(name, known)
    hint = asked_back(near, remark) if near else "cnnviz methods lists what there is"
    return f"there is no method {name!r}; {hint}"


def _input_shape(
    model: nn.Module, lengths: tuple[int, ...] | None, crop: tuple[int, int] | None, channels: int
) -> tuple[int, ...]:
    """The shape of one input, (1, C, *spatial): of the lengths given, or the network's own size.

    Raises ValueError if neither is known.
    """
    from torch.nn.modules.conv import _ConvNd

    first = next((module for module in model.modules() if isinstance(module, _ConvNd)), None)
    rank = 2 if first is None else len(first.kernel_size)
    size = lengths or (crop if rank == 2 else None)
    if size is None:
        example = "x".join(["224", "224", "64"][:rank])
        raise ValueError(f"the size of {type(model).__name__}'s input is not known; give it, such as --size {example}")
    return (1, channels, *(size * rank if len(size) == 1 else size))


def _output_shapes(model: nn.Module, inputs: Tensor) -> dict[str, str]:
    """For each layer the shape of the output of its last call, or the output's type if it is no tensor."""
    import torch

    from cnnviz.engine.forward import forward

    shapes: dict[str, str] = {}

    def observe(name: str, module: nn.Module, args: Any, output: Any) -> None:
        shapes[name] = _shape(output) if isinstance(output, torch.Tensor) else type(output).__name__

    hooks = [(name, partial(observe, name)) for name, _ in model.named_modules()]
    forward(model, [inputs], hooks=hooks, survey=True)
    return shapes


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape[1:]))
