"""All that a method could leave behind on a model, its input, or in torch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def state(model: nn.Module, inputs: Tensor) -> dict[str, Any]:
    """All that must stay as it was, by what to say if it does not."""
    state: dict[str, Any] = {
        "changes torch's grad mode": torch.is_grad_enabled(),
        "leaves torch's inference mode changed": torch.is_inference_mode_enabled(),
        "leaves autocast changed": torch.is_autocast_enabled("cpu"),
        "leaves a torch function mode entered": torch._C._len_torch_function_stack(),
        "changes torch's default dtype": torch.get_default_dtype(),
        "seeds or uses torch's global generator; draw from run.generator": torch.get_rng_state(),
        "replaces torch.nn.functional.relu": F.relu,
        "writes into the input": inputs.detach().clone(),
    }
    for name, module in model.named_modules():
        place = repr(name) if name else "the model"
        hooks = {key: tuple(kept) for key, kept in vars(module).items() if key.endswith("_hooks") and kept}
        state |= {
            f"replaces the module {place}": id(module),
            f"changes the training flag of {place}": module.training,
            f"leaves hooks on {place}": hooks,
            f"leaves attributes on {place}": sorted(vars(module)),
        }
    for name, tensor in [("the input", inputs), *model.named_parameters(), *model.named_buffers()]:
        state |= {
            f"replaces {name}": id(tensor),
            f"changes the values of {name}": tensor.detach().clone(),
            f"changes requires_grad of {name}": tensor.requires_grad,
            f"changes the gradient kept in {name}": None if tensor.grad is None else tensor.grad.clone(),
            f"leaves hooks on {name}": len(tensor._backward_hooks or ()),
        }
    return state
