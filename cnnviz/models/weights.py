"""Loading weights from files into networks: all of them or none, and no code in the file runs unless it is trusted.

The first bytes of a file say what it is, not its suffix.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cnnviz.images.reading import one_line

Kind = Literal["safetensors", "checkpoint", "TorchScript", "exported program"]

WRAPPERS = ("state_dict", "model_state_dict", "model")  # what training scripts save the weights under
SAVE_PLAIN = "save them dense and unquantized"
PACKED = (torch.float4_e2m1fn_x2,)  # two numbers in a byte, which PyTorch converts to nothing else
PREFIXES = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name


def load_weights(module: nn.Module, path: str | Path, trust_model: bool = False) -> None:
    """Copies the weights in a .safetensors, .pth or .pt file into the module, in the module's own precision.

    Raises ValueError, and leaves the module as it was, when a weight is missing, left over, of another shape
    or not finite, when the file is damaged, and for a file that can run code unless ``trust_model`` is set.
    """
    fill(module, read_weights(path, trust_model), path)


def kind_of(path: str | Path) -> Kind:
    """What the file's content is, whatever it is called; nothing in it is run."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no weights file '{path}'")
    if not path.is_file():
        raise ValueError(f"weights '{path}' are not a file; name a .safetensors, .pth or .pt file")
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":  # after the length of a JSON header
        return "safetensors"
    if start.startswith(b"\x80"):
        return "checkpoint"
    if not start.startswith(b"PK\x03\x04"):
        raise ValueError(
            f"weights '{path}' are neither safetensors nor a file of torch.save; save a state dict as either"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
            grows = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as reason:
        raise ValueError(f"weights '{path}' are damaged or cut short: {one_line(reason)}") from reason
    if "constants.pkl" in names:
        return "TorchScript"
    if "archive_format" in names or "archive_version" in names:
        return "exported program"
    if "data.pkl" not in names or grows:  # torch.save never compresses: a small file stays small
        raise ValueError(f"weights '{path}' are a zip archive, but not one that torch.save wrote")
    return "checkpoint"


def read_weights(path: str | Path, trust_model: bool = False) -> Mapping[str, Any]:
    """The weights in a file by name, on the CPU, taken out of what training scripts wrap them in."""
    path, kind = Path(path), kind_of(path)
    if kind == "safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            content: Any = load_file(path)
        except (SafetensorError, KeyError, ValueError, OSError) as reason:
            raise ValueError(f"weights '{path}' are damaged or cut short: {one_line(reason)}") from reason
        except NotImplementedError as reason:  # packed numbers, such as those of 4 bits
            raise ValueError(f"weights '{path}' hold numbers that PyTorch can't load; {SAVE_PLAIN}") from reason
    elif kind == "checkpoint":
        content = _unpickled(path, trust_model)
    else:
        content = read_module(path, trust_model)
    while True:
        if isinstance(content, nn.Module):
            content = content.state_dict()
        if not isinstance(content, Mapping):
            what = type(content).__name__
            raise ValueError(f"weights '{path}' hold a {what}, not a state dict; save model.state_dict()")
        wrapped = [content[key] for key in WRAPPERS if isinstance(content.get(key), (Mapping, nn.Module))]
        if not wrapped:
            return content
        content = wrapped[0]


def read_module(path: str | Path, trust_model: bool = False) -> nn.Module:
    """The whole network in a TorchScript, exported (.pt2) or pickled file, which runs code when opened."""
    path, kind = Path(path), kind_of(path)
    if kind == "safetensors":
        content: Any = None
    elif kind == "checkpoint":
        content = _unpickled(path, trust_model)
    else:
        if not trust_model:
            raise ValueError(_untrusted(path, f"is a program ({kind})"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit is deprecated, which the file cannot help
            try:
                script: Any = torch.jit.load  # which has no types
                content = script(path, "cpu") if kind == "TorchScript" else torch.export.load(path).module()
            except Exception as reason:  # code of the file's own can fail in any way
                raise ValueError(f"model '{path}' does not load: {one_line(reason)}") from reason
    if not isinstance(content, nn.Module):
        raise ValueError(
            f"'{path}' holds weights without a network; name the network, and give the file as its weights "
            "(--weights FILE)"
        )
    return content


def fill(module: nn.Module, weights: Mapping[str, Any], source: str | Path, spare: tuple[str, ...] = ()) -> None:
    """Copies weights by name into the module, or raises ValueError about the source and changes nothing.

    Weights whose names start with one of ``spare`` may be left over.
    """
    expected = module.state_dict()
    fitting = _as_named_in(expected, weights)
    _check_numbers(fitting, expected, source)
    others = {
        name: (tuple(fitting[name].shape), tuple(tensor.shape))
        for name, tensor in expected.items()
        if isinstance(tensor, Tensor) and name in fitting and fitting[name].shape != tensor.shape
    }
    for name in others:
        del fitting[name]
    before = {name: tensor.clone() for name, tensor in expected.items() if isinstance(tensor, Tensor)}
    try:
        keys = module.load_state_dict(fitting, strict=False)  # here modules rename what older versions wrote
        # the count of batches is for training alone, and older files lack it
        missing = [n for n in keys.missing_keys if n not in others and not n.endswith("num_batches_tracked")]
        unexpected = [name for name in keys.unexpected_keys if not name.startswith(spare)]
        if missing or unexpected or others:
            raise ValueError(_mismatch(module, source, missing, unexpected, others, list(expected)))
    except BaseException as reason:
        with torch.no_grad():
            for name, tensor in before.items():
                expected[name].copy_(tensor)  # shares its memory with the module
        if isinstance(reason, RuntimeError):  # torch tells it on many lines
            network = type(module).__name__
            raise ValueError(f"weights '{source}' do not fit {network}: {one_line(reason)}") from reason
        raise


def _unpickled(path: Path, trust_model: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old formats, which load all the same
        try:
            with path.open("rb") as file:  # given the path, torch.load would believe its suffix
                return torch.load(file, "cpu", weights_only=True)
        except pickle.UnpicklingError as reason:
            code = re.search(r"GLOBAL ([\w.]+)", str(reason))
            if "Unsupported operand" in str(reason):
                raise ValueError(f"weights '{path}' are damaged, or not of torch.save") from reason
            if not trust_model:
                what = f"code ({code[1]}), not only numbers" if code else "more than numbers"
                raise ValueError(_untrusted(path, f"holds {what}")) from reason
        except Exception as reason:  # torch.load fails on a broken file in many ways
            short = one_line(reason)[:200]
            raise ValueError(f"weights '{path}' are damaged or cut short: {short}") from reason
        try:
            with path.open("rb") as file:
                return torch.load(file, "cpu", weights_only=False)
        except Exception as reason:
            raise ValueError(f"model '{path}' does not load: {one_line(reason)}") from reason


def _untrusted(path: Path, fact: str) -> str:
    return (
        f"file '{path}' {fact}, and opening it could do anything; save model.state_dict() instead, or, "
        "if you trust whoever made the file, pass --trust-model (in Python trust_model=True)"
    )


def _as_named_in(expected: Mapping[str, Any], weights: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """The weights under the network's names, with the versions by which modules rename old ones."""
    # torchvision's published densenets keep the names of a time when "norm.1" could be a module's name
    old = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")
    named: Any = OrderedDict((old.sub(r"\1", str(name)), value) for name, value in weights.items())
    # safetensors do not tell their age; today's names are the best guess
    versions = getattr(weights, "_metadata", None) or getattr(expected, "_metadata", {})
    while named.keys().isdisjoint(expected):
        prefix = next((p for p in PREFIXES if named and all(name.startswith(p) for name in named)), None)
        if prefix is None:
            break
        named = OrderedDict((name[len(prefix) :], value) for name, value in named.items())
        versions = {name[len(prefix) :]: value for name, value in versions.items()}
    named._metadata = versions
    result: OrderedDict[str, Any] = named
    return result


def _check_numbers(weights: Mapping[str, Any], expected: Mapping[str, Any], source: str | Path) -> None:
    for name, tensor in weights.items():
        present = expected.get(name)
        if not isinstance(tensor, Tensor):
            if isinstance(present, Tensor):
                raise ValueError(f"weights '{source}' have {name} as {type(tensor).__name__}, not a tensor")
            continue
        plain = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta
        plain = plain and tensor.dtype not in PACKED
        real = isinstance(present, Tensor) and present.is_floating_point()
        if not plain or (real and not tensor.is_floating_point()):
            raise ValueError(
                f"weights '{source}' have {name} as {tensor.dtype} ({tensor.layout}) where the network "
                f"computes in floating point; {SAVE_PLAIN}"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
            count = f"{int((~torch.isfinite(tensor.float())).sum())} of {tensor.numel()}"
            raise ValueError(f"weights '{source}' are broken: {name} is NaN or infinite in {count} places")


def _mismatch(
    module: nn.Module,
    source: str | Path,
    missing: list[str],
    unexpected: list[str],
    others: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
    names: list[str],
) -> str:
    network = type(module).__name__
    shapes = [f"{name} is {_shape(there)}, not {_shape(here)}" for name, (there, here) in others.items()]
    outputs = {(there[:1], here[:1]) for there, here in others.values()}
    same_inputs = all(there[1:] == here[1:] for there, here in others.values())
    if not missing and not unexpected and names[-1] in others and len(outputs) == 1 and same_inputs:
        there, here = others[names[-1]]
        return (
            f"weights '{source}' have {there[0]} outputs where {network} has {here[0]} ({shapes[0]}); make "
            f"the network with {there[0]} outputs in your own code and give that as the model: "
            "package.module:factory"
        )
    counted = [
        f"{len(faults)} {what} ({', '.join(faults[:3])}{', ...' if len(faults) > 3 else ''})"
        for what, faults in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if faults
    ]
    return f"weights '{source}' do not fit {network}: {', '.join(counted)}; use weights of the same network"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
