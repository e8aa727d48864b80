"""Loading weights from files into networks: all of them or none, and no code in the file runs unless it is trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnnviz.images.reading import one_line
from cnnviz.models.checkpoints import Fit, chosen, chosen_network
from cnnviz.models.weight_sets import listed
from cnnviz.models.weights_file import SAVE_PLAIN, Content, read_content, read_network

PACKED = (torch.float4_e2m1fn_x2,)  # two numbers in a byte, which PyTorch converts to nothing else


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights, and what the user says of it."""

    path: str | Path
    trust_model: bool = False
    key: str | None = None
    prefix: str | None = None


@dataclass(frozen=True, eq=False)
class Filled:
    """A network with weights of a file."""

    module: nn.Module
    notes: tuple[str, ...]
    """What was decided, a line each."""
    outputs: int | None = None
    """As many as the file has, where the network was made anew for them."""


def load_weights(
    module: nn.Module,
    path: str | Path,
    trust_model: bool = False,
    key: str | None = None,
    prefix: str | None = None,
) -> tuple[str, ...]:
    """Copies the weights in a .safetensors, .pth or .pt file into the module, in the module's own precision.

    ``key`` names the entry of the file that holds them, ``prefix`` what stands before their names; both are found
    where all weights fit then. Returns a line for each decision.
    Raises ValueError, and leaves the module as it was, when a weight is missing, left over, of another shape
    or not finite, when the file is damaged, and for a file that can run code unless ``trust_model`` is set.
    """
    file = WeightsFile(path, trust_model, key, prefix)
    return filled(lambda classes: module, file, resizable=False).notes


def filled(
    build: Callable[[int | None], nn.Module],
    file: WeightsFile,
    *,
    num_classes: int | None = None,
    resizable: bool = True,
    spare: tuple[str, ...] = (),
) -> Filled:
    """The network that ``build`` makes of a number of classes, or of None for its own, with the weights of the file.

    Where only the number of outputs differs, ``num_classes`` is None and ``resizable`` is set, the network is made
    again with as many as the file has. Weights whose names start with one of ``spare`` may be left over.
    """
    content = read_content(file.path, file.trust_model)
    module = build(num_classes)
    fit = chosen(content.value, module.state_dict(), file.path, key=file.key, prefix=file.prefix, spare=spare)
    note = fit.note(file.path)
    notes = [] if note is None else [note]
    outputs = None
    if fit.head is not None and num_classes is not None:
        raise ValueError(
            f"weights '{file.path}' have {fit.head[0]} outputs, and num_classes is {num_classes}; leave num_classes "
            "out, and the number is read off the file"
        )
    if fit.head is not None and resizable and _stored(fit, content):
        count, usual = fit.head
        other = build(count)
        refit = fit.again(other.state_dict())
        if refit.whole:
            module, fit, outputs = other, refit, count
            notes.append(
                f"weights '{file.path}' have {count} outputs where {type(module).__name__} has {usual}, so it is made "
                f"with {count} classes (--categories names them)"
            )
    fill(module, fit, file.path)
    return Filled(module, tuple(notes), outputs)


def read_module(
    path: str | Path, trust_model: bool = False, key: str | None = None
) -> tuple[nn.Module, tuple[str, ...]]:
    """The whole network in a TorchScript, exported (.pt2) or pickled file, which runs code when opened.

    A pickle may hold it in a dict; ``key`` is its key there. Returns a line for each decision too.
    """
    module, note = chosen_network(read_network(path, trust_model), path, key)
    return module, () if note is None else (note,)


def fill(module: nn.Module, fit: Fit, source: str | Path) -> None:
    """Copies weights by name into the module, or raises ValueError about the source and changes nothing."""
    expected = module.state_dict()
    fitting = fit.weights.copy()
    fitting._metadata = fit.weights._metadata  # type: ignore[attr-defined]  # torch's own way to keep versions
    for name in fit.others:
        del fitting[name]
    _check_numbers(fitting, expected, source)
    before = {name: tensor.clone() for name, tensor in expected.items() if isinstance(tensor, Tensor)}
    try:
        keys = module.load_state_dict(fitting, strict=False)  # here modules rename what older versions wrote
        # the count of batches is for training alone, and older files lack it
        missing = [n for n in keys.missing_keys if n not in fit.others and not n.endswith("num_batches_tracked")]
        unexpected = [name for name in keys.unexpected_keys if not name.startswith(fit.spare)]
        if missing or unexpected or fit.others:
            raise ValueError(_mismatch(module, source, fit, missing, unexpected))
        renamed = {name: tensor for name, tensor in module.state_dict().items() if name not in fitting}
        _check_numbers(renamed, renamed, source)
    except BaseException as reason:
        with torch.no_grad():
            for name, tensor in before.items():
                expected[name].copy_(tensor)  # shares its memory with the module
        if isinstance(reason, RuntimeError):  # torch tells it on many lines
            network = type(module).__name__
            raise ValueError(f"weights '{source}' do not fit {network}: {one_line(reason)}") from reason
        raise


def _stored(fit: Fit, content: Content) -> bool:
    """Whether weights of another shape are as large as they say: few numbers can stand for very many."""
    tensors = (fit.weights[name] for name in fit.others)
    return all(tensor.numel() * tensor.element_size() <= content.size for tensor in tensors)


def _check_numbers(weights: Mapping[str, Any], expected: Mapping[str, Any], source: str | Path) -> None:
    """Refuse what the network can't compute with; of the weights that are taken, which are of its shapes."""
    for name, present in expected.items():
        tensor = weights.get(name)
        if not isinstance(tensor, Tensor):
            if isinstance(present, Tensor) and name in weights:
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
    module: nn.Module, source: str | Path, fit: Fit, missing: Sequence[str], unexpected: Sequence[str]
) -> str:
    network = type(module).__name__
    place = f" ({fit.place})" if fit.place else ""
    shapes = [f"{name} is {_shape(there)}, not {_shape(here)}" for name, (there, here) in fit.others.items()]
    if not missing and not unexpected and fit.head is not None and list(module.state_dict())[-1] in fit.others:
        there, here = fit.head
        return (
            f"weights '{source}'{place} have {there} outputs where {network} has {here} ({shapes[0]}); make "
            f"the network with {there} outputs in your own code and give that as the model: "
            "package.module:factory"
        )
    counted = [
        f"{len(faults)} {what} ({listed(faults)})"
        for what, faults in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if faults
    ]
    return f"weights '{source}'{place} do not fit {network}: {', '.join(counted)}; use weights of the same network"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
