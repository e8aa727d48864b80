"""What a rule lists and can't act on, because another thread of the model's own calls it, is refused by its name."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from nets import randomized, tiny_inputs
from torch import Tensor, nn

from cnnviz import explain

MAPS = randomized(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)))
KERNEL, MATRIX, TURNED = torch.randn(3, 3, 1, 1).double(), torch.randn(3, 3).double(), torch.randn(3, 3, 1, 1).double()
PARTS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "conv": (lambda x: F.conv2d(x, KERNEL), "convolution"),
    "transposed conv": (lambda x: F.conv_transpose2d(x, TURNED), "convolution"),
    "linear": (lambda x: F.linear(x.mT, torch.ones(x.shape[2], x.shape[2]).to(x)).mT, "bmm|mm"),
    "linear with bias": (lambda x: F.linear(x.mean((2, 3)), MATRIX, MATRIX[0])[:, :, None, None], "addmm"),
    "matrix product": (lambda x: (MATRIX @ x.flatten(2)).reshape(x.shape), "bmm|mm"),
    "batch norm": (lambda x: F.batch_norm(x, MATRIX[0], MATRIX[1].square() + 1), "nativebatchnorm"),
    "layer norm": (lambda x: F.layer_norm(x, x.shape[2:]), "nativelayernorm"),
    "group norm": (lambda x: F.group_norm(x, 1), "nativegroupnorm"),
    "product": (lambda x: x * x.mean((2, 3), keepdim=True), "mul"),
    "gelu": (F.gelu, "gelu"),
    "exp": (torch.exp, "exp"),
}


class InAThread(nn.Module):
    """A part of it is computed in a thread; what follows is called in the thread of the pass."""

    def __init__(self, part: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.part, self.head = part, randomized(nn.Linear(3, 4))
        self.maps = MAPS
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        given: list[Tensor] = []
        grad, maps = torch.is_grad_enabled(), self.maps(x)

        def work() -> None:
            with torch.set_grad_enabled(grad):
                given.append(self.part(maps))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        scores: Tensor = self.head(given[0].mean((2, 3)))
        return scores


@pytest.mark.parametrize("method", ["lrp", "layer_relevance", "conditional_relevance"])
@pytest.mark.parametrize("part", PARTS)
def test_relevance_is_refused_where_an_operation_is_called_elsewhere(part: str, method: str) -> None:
    work, name = PARTS[part]
    settings = {} if method == "lrp" else {"layer": "maps"}
    with pytest.raises(LookupError, match=rf"^rule 'lrp' can't act on ({name}) in InAThread: [^\n]*$"):
        explain(InAThread(work), tiny_inputs(), method, target=1, **settings)


def test_what_is_linear_everywhere_may_be_called_elsewhere() -> None:
    net = InAThread(lambda x: F.avg_pool2d(x.mT.flip(3), 2) + 1)
    found = explain(net, tiny_inputs(), "lrp", target=1).values

    class Here(InAThread):
        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.head((F.avg_pool2d(self.maps(x).mT.flip(3), 2) + 1).mean((2, 3)))
            return scores

    here = Here(net.part)
    here.load_state_dict(net.state_dict())
    torch.testing.assert_close(found, explain(here, tiny_inputs(), "lrp", target=1).values)
