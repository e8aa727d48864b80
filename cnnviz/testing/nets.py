"""The network that methods are checked on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 5


class _Attention(nn.Module):
    """Places of (N, channels, *spatial) attend to each other, and what they find is added."""

    def __init__(self, channels: int):
        super().__init__()
        self.parts = nn.Linear(channels, 3 * channels)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.parts(x.flatten(2).mT).chunk(3, 2)
        found = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]
        attended: Tensor = x + found.mT.reshape(x.shape)
        return attended


class SmallNet(nn.Module):
    """A classifier of few weights, (N, channels, *spatial) to scores (N, 5), in eval mode.

    Its ReLUs are written the three ways models write them: as a module, as a function, and in place on a tensor. It
    has batch normalization, dropout and pooling, and ends in global average pooling and a linear layer. ``rank`` is the
    number of spatial dimensions, 1 to 3; ``seed`` determines the weights; ``between`` is put in the middle, and with
    ``attention`` places attend to each other there.
    """

    def __init__(
        self,
        rank: int = 2,
        channels: int = 3,
        seed: int = 0,
        between: nn.Module | None = None,
        attention: bool = False,
    ):
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
        norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = conv(channels, 6, 3, padding=1)
            self.norm = norm(6)
            self.relu = nn.ReLU(inplace=True)
            self.pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[rank - 1](2)
            self.second = conv(6, 8, 3, padding=1)
            self.dropout = nn.Dropout()
            self.third = conv(8, 8, 3, padding=1)
            self.classifier = nn.Linear(8, CLASSES)
            for values in (self.norm.running_mean, self.norm.running_var, self.norm.weight):
                if values is not None:
                    nn.init.uniform_(values, 0.5, 1.5)
            nn.init.uniform_(self.third.weight, -0.2, 0.3)  # maps of a positive part are to show something
            nn.init.uniform_(self.classifier.weight, -0.5, 1.0)
            attending = [_Attention(8)] if attention else []
        self.between = nn.Sequential(*attending, between or nn.Identity()) if attending else between or nn.Identity()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.norm(self.first(x))))
        x = self.between(F.relu(self.second(x)))
        x = self.third(self.dropout(x)).relu_()
        scores: Tensor = self.classifier(x.flatten(2).mean(2))
        return scores


class PairNet(SmallNet):
    """Takes two inputs, the second (N, 1), and gives the scores of the first times the second."""

    def forward(self, x: Tensor, factor: Tensor) -> Tensor:  # type: ignore[override]  # one more than its base
        return super().forward(x) * factor


class HalfBlindNet(SmallNet):
    """Sees the first half of the last dimension alone; whatever is positive there speaks for class 0.

    Other classes score 0, and class 0 about 2, so that its probability grows with the evidence too.
    """

    def __init__(self, rank: int = 2, attention: bool = False):
        super().__init__(rank, attention=attention)
        with torch.no_grad():
            for name, values in self.named_parameters():
                values.copy_(torch.zeros_like(values) if name.endswith("bias") else values.abs())
            if self.norm.running_mean is not None:
                self.norm.running_mean.zero_()
            self.classifier.weight[1:] = 0
            self.classifier.weight *= 2 / self(torch.ones(1, 3, *(16,) * rank)).max()

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.arange(x.shape[-1], device=x.device) < x.shape[-1] // 2
        return super().forward(x * seen.to(x))
