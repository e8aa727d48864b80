"""Checkpointing gives what the part gives without it, and is there again afterwards."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from nets import randomized
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointFunction, checkpoint

from cnnviz import explain


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
        self.head = nn.Linear(3, 3)
        randomized(self, 1)
        self.reentrant = reentrant
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        maps = self.part(x) if self.reentrant is None else checkpoint(self.part, x, use_reentrant=self.reentrant)
        return self.head(maps.mean((2, 3)))


def inputs() -> Tensor:
    return torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(1)).double()


METHODS: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("gradient", "guided_backprop", "deeplift", "fullgrad", "occlusion", "lrp")},
    "grad_cam": {"layer": "part.1"},
    "layer_cam": {},
    "integrated_gradients": {"steps": 5},
}


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_a_checkpointed_part_is_explained_as_without(method: str, reentrant: bool) -> None:
    found, plain = (
        explain(Checkpointed(each), inputs(), method, target=1, **METHODS[method]).values for each in (reentrant, None)
    )
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-12)


def test_it_is_only_set_aside_in_the_thread_of_the_pass_and_comes_back() -> None:
    """A checkpoint that is not reentrant sets hooks for what is saved."""
    seen: list[Any] = []

    def hooked() -> bool:
        return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None

    net, leaf, saving = Checkpointed(True), inputs().requires_grad_(), torch.utils.checkpoint._checkpoint_hook

    def elsewhere() -> None:
        seen.append(type(checkpoint(net.part, leaf, use_reentrant=True).grad_fn).__name__)
        checkpoint(lambda x: seen.append(hooked()), leaf, use_reentrant=False)

    class Watches(Checkpointed):
        def forward(self, x: Tensor) -> Tensor:
            other = threading.Thread(target=elsewhere)
            other.start()
            other.join()
            return super().forward(x)

    explain(Watches(True), inputs(), "gradient", target=1)
    assert set(seen) == {"CheckpointFunctionBackward", True}
    assert "apply" not in vars(CheckpointFunction)
    assert torch.utils.checkpoint._checkpoint_hook is saving
    net(leaf)[:, 1].sum().backward()  # as training does it
    torch.testing.assert_close(leaf.grad, explain(Checkpointed(None), inputs(), "gradient", target=1).values)
