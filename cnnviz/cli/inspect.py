"""The commands that list what there is: methods, a network's layers, and whether everything installed works."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnviz.cli import value_parsing
from cnnviz.cli.completion import MODELS, all_names, among
from cnnviz.cli.documents import Json, print_document
from cnnviz.cli.errors import PARTLY, print_line, print_note, printable, reason
from cnnviz.cli.options import Key, NumClasses, Prefix, TrustModel, Weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cnnviz.registry.registry import Method, Registry

Plain = Annotated[bool, typer.Option("--plain", help="Put tabs between columns, for scripts.")]


def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            help="One of them, whose page and settings are printed.", show_default=False, autocompletion=all_names
        ),
    ] = None,
    plain: Plain = False,
    json: Json = False,
) -> None:
    """List the methods that explain, draw, make pictures and measure; with NAME, print one and its settings.

    Methods that explain combine to formulas: --method 'guided_backprop() * upsample(grad_cam())'.
    """
    from cnnviz.registry.registry import registries

    holders = [registry for registry in registries if name is None or name in registry]
    if name is not None and not holders:
        raise LookupError(_unknown(name, [known for registry in registries for known in registry]))
    if json:
        chosen = [(registry, each) for registry in holders for each in registry if name in (None, each)]
        print_document([_described(registry, each) for registry, each in chosen])
    elif name is not None:
        for registry in holders:
            _page(registry[name], registry, name, plain)
    else:
        for registry in registries:
            entries = [_described(registry, method) for method in registry]
            kind = [registry.kind] if plain else []
            rows = [[*kind, each["name"], each["error"] or each["summary"], each["origin"]] for each in entries]
            _table((registry.kind, "what it is", "from"), rows, plain)


def layers(
    model: Annotated[
        str,
        typer.Argument(
            help="The network, as cnnviz explain --model takes it.", show_default=False, autocompletion=among(MODELS)
        ),
    ],
    weights: Weights = None,
    num_classes: NumClasses = None,
    key: Key = None,
    prefix: Prefix = None,
    trust_model: TrustModel = False,
    size: Annotated[
        str | None,
        typer.Option(help="The size of the input, without channels: 224, 224x320, or of any rank.", metavar="SIZE"),
    ] = None,
    plain: Plain = False,
    json: Json = False,
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
    outputs = _outputs(loaded.module, inputs)
    try:
        automatic = automatic_layer(loaded.module, (inputs,))
    except LookupError:
        automatic = ""  # class activation maps find none; gradients need none
    numbers = {name: str(number) for number, name in enumerate(convolutions(loaded.module), 1)}
    named = [(name, module) for name, module in loaded.module.named_modules() if name]
    if json:
        entries = [
            {
                "name": name,
                "type": type(module).__name__,
                "shape": list(each.shape[1:]) if isinstance(each := outputs.get(name), torch.Tensor) else None,
                "number": int(numbers[name]) if name in numbers else None,
                "automatic": name == automatic,
            }
            for name, module in named
        ]
        print_document({"model": loaded.name, "input_shape": list(inputs.shape[1:]), "layers": entries})
        return
    shapes = {name: _written(output) for name, output in outputs.items()}
    marks = {automatic: "automatic"}
    rows = [
        (name, type(module).__name__, shapes.get(name, "does not run"), numbers.get(name, ""), marks.get(name, ""))
        for name, module in named
    ]
    _table(("layer", "type", f"of {_shape(inputs)}", "number", ""), rows, plain)


def doctor(json: Json = False) -> int:
    """Load everything that is installed, and tell what does not work."""
    import platform
    from importlib.metadata import version

    import torch

    from cnnviz.registry.import_watch import unknown_groups
    from cnnviz.registry.registry import registries

    versions = {package: version(package) for package in ("cnnviz", "torch", "torchvision")}
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    apple = torch.backends.mps.is_available()
    remarks = [{"from": origin, "remark": line} for origin, line in unknown_groups([each.group for each in registries])]
    remarks += _remarks(registries)
    faults = {registry.group.rpartition(".")[2]: registry.faults() for registry in registries}
    loaded = {kind: len(registry) - len(faults[kind]) for kind, registry in zip(faults, registries, strict=True)}
    told = [
        {"kind": kind, "name": name, "error": reason(error)} for kind in faults for name, error in faults[kind].items()
    ]
    if json:
        about = {"versions": versions | {"python": platform.python_version()}, "cuda": devices, "mps": apple}
        print_document(about | {"loaded": loaded, "faults": told, "remarks": remarks})
        return PARTLY if told or remarks else 0
    for package, number in versions.items():
        print_line(f"{package} {number}")
    print_line(f"Python {platform.python_version()}")
    print_line(f"CUDA: {', '.join(devices) or 'none'}")
    print_line(f"MPS: {'there' if apple else 'none'}")
    for kind, count in loaded.items():
        print_line(f"{count} {kind} load")
        for fault in told:
            if fault["kind"] == kind:
                print_line(f"fault: {fault['error']}")
    for remark in remarks:
        print_line(f"remark: {remark['from']}: {remark['remark']}")
    return PARTLY if told or remarks else 0


def _remarks(registries: Sequence[Registry[Any]]) -> list[dict[str, str]]:
    """Load what other packages offer, and tell what they do beside; what does not load is told by its fault."""
    from cnnviz.registry.hooks import HOME
    from cnnviz.registry.import_watch import misspelt_hooks, watched
    from cnnviz.registry.registry import PluginError

    told: list[tuple[str, str]] = []
    for registry in registries:
        for name in registry:
            origin = registry.origin(name)
            if origin.partition(" ")[0] == HOME:
                continue
            lines: list[str] = []
            with suppress(PluginError), watched(lines.append):
                registry[name]
            lines += misspelt_hooks(registry.plugins.get_plugin(name))
            told += [(origin, line) for line in lines]
    return [{"from": origin, "remark": line} for origin, line in dict.fromkeys(told)]


def _described(registry: Registry[Any], name: str) -> dict[str, Any]:
    """A method in words: what it is, where it is from, its settings; or why it does not load."""
    from cnnviz.cli.method_options import annotation
    from cnnviz.registry.registry import PluginError
    from cnnviz.registry.setting_meanings import meaning_of

    entry: dict[str, Any] = {"kind": registry.kind, "name": name, "origin": registry.origin(name)}
    try:
        method = registry[name]
    except PluginError as error:  # its neighbours work all the same
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        return entry | {"summary": None, "page": None, "settings": [], "error": f"does not load: {reason(cause)}"}
    settings = [
        {
            "name": setting,
            "option": _option(setting),
            "type": annotation(method, setting),
            "required": parameter.default is inspect.Parameter.empty,
            "default": _default(parameter),
            "meaning": _plain_text(meaning_of(method, setting)),
        }
        for setting, parameter in method.settings.items()
    ]
    page = _plain_text(inspect.getdoc(method.build) or "")
    return entry | {"summary": _plain_text(method.summary), "page": page, "settings": settings, "error": None}


def _option(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"


def _default(parameter: inspect.Parameter) -> Any:
    """As JSON has it: numbers, text, and lists of them; anything else in its Python form."""
    if parameter.default is inspect.Parameter.empty:
        return None
    plain = isinstance(parameter.default, bool | int | float | str | NoneType)
    return parameter.default if plain else repr(parameter.default)


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
        rows.append((_option(setting), annotation(method, setting), default, _plain_text(meaning_of(method, setting))))
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


def _outputs(model: nn.Module, inputs: Tensor) -> dict[str, Any]:
    """For each layer the output of its last call; of a tensor one that holds no numbers."""
    import torch

    from cnnviz.engine.forward import forward

    outputs: dict[str, Any] = {}

    def observe(name: str, module: nn.Module, args: Any, output: Any) -> None:
        outputs[name] = output.to("meta") if isinstance(output, torch.Tensor) else type(output)

    hooks = [(name, partial(observe, name)) for name, _ in model.named_modules()]
    forward(model, [inputs], hooks=hooks, survey=True)
    return outputs


def _written(output: Any) -> str:
    """The shape of a layer's output, or the output's type if it is no tensor."""
    return output.__name__ if isinstance(output, type) else _shape(output)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape[1:]))
