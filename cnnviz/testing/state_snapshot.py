"""Everything that a method could leave behind on a model, its input, or in torch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as every_module


@dataclass(frozen=True, eq=False)
class _Identity:
    """Equal for one object alone; it is held, so that its address is not given out again."""

    owner: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.owner is other.owner


def global_random_numbers() -> dict[str, Any]:
    """The state of every global generator, by the words for its change."""
    return {
        "seeds or uses torch's global generator; draw from the draws it is given": torch.get_rng_state(),
        "uses NumPy's global random numbers": str(np.random.get_state(legacy=False)),
        "uses Python's global random numbers": random.getstate(),
    }


def state(model: nn.Module, inputs: Tensor) -> dict[str, Any]:
    """Everything that must stay as it was, by the words for its change; ``inputs`` are of any shape."""
    state: dict[str, Any] = {
        "changes torch's grad mode": torch.is_grad_enabled(),
        "leaves torch's inference mode changed": torch.is_inference_mode_enabled(),
        "leaves autocast changed": torch.is_autocast_enabled("cpu"),
        "leaves a torch function mode entered": torch._C._len_torch_function_stack(),
        "changes torch's default dtype": torch.get_default_dtype(),
        "leaves a torch dispatch mode entered": torch._C._len_torch_dispatch_stack(),
        "leaves the anomaly mode changed": torch.is_anomaly_enabled(),
        "changes how kernels are chosen": (
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            torch.are_deterministic_algorithms_enabled(),
            torch.get_float32_matmul_precision(),
        ),
        "changes the number of threads": torch.get_num_threads(),
        "leaves hooks on every module": {
            name: tuple(entries)
            for name, entries in vars(every_module).items()
            if name.startswith("_global_") and isinstance(entries, dict)
        },
        "replaces torch.nn.functional.relu": F.relu,
        "writes into the input": inputs.detach().clone(),
        **global_random_numbers(),
    }
    for name, module in model.named_modules():
        place = repr(name) if name else "the model"
        hooks = {key: tuple(entries) for key, entries in vars(module).items() if key.endswith("_hooks") and entries}
        state |= {
            f"replaces the module {place}": _Identity(module),
            f"replaces the forward of {place}": getattr(type(module), "forward", None),  # TorchScript has none
            f"changes the training flag of {place}": module.training,
            f"leaves hooks on {place}": hooks,
            f"leaves attributes on {place}": sorted(vars(module)),
        }
    for name, tensor in [("the input", inputs), *model.named_parameters(), *model.named_buffers()]:
        gradient = tensor.grad if tensor.is_leaf else None
        state |= {
            f"replaces {name}": _Identity(tensor),
            f"changes the values of {name}": tensor.detach().clone(),
            f"changes requires_grad of {name}": tensor.requires_grad,
            f"changes the gradient kept in {name}": None if gradient is None else gradient.clone(),
            f"leaves hooks on {name}": len(tensor._backward_hooks or ()),
        }
    return state


@contextmanager
def unchanged(name: str, read: Callable[[], dict[str, Any]], situation: str = "") -> Iterator[None]:
    """Raise AssertionError on leaving if a state read before and after differs.

    It says ``name``, the words for what changed, and the situation. Where the block raises, nothing is compared: catch
    the exception inside.
    """
    before = read()
    yield
    after = read()
    for words in before | after:
        if not equal(before.get(words), after.get(words)):
            raise AssertionError(f"{name} {words}{situation}")


def equal(old: Any, new: Any) -> bool:
    """True for one value, or for tensors of the same shape, type and numbers, NaN included."""
    if not isinstance(old, Tensor) or not isinstance(new, Tensor):
        return bool(old is new or old == new)
    alike = old.shape == new.shape and old.dtype == new.dtype
    return alike and bool(((old == new) | (old.isnan() & new.isnan())).all())
