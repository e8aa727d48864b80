"""Which values an input can have: those that pictures have after preprocessing."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cnnviz.images.preprocessing import Preprocessing

UNKNOWN_RANGE = (-2.0, 2.0)
"""Of inputs whose preprocessing is not known: that of 0..1 under a mean of 0.5 and a standard deviation of 0.25."""


@dataclass(frozen=True, eq=False)
class Bounds:
    """The lowest and the highest value an input can have, for each channel, (C,)."""

    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, preprocessing: Preprocessing | None, like: Tensor) -> Bounds:
        """What 0 and 1 become under the preprocessing, or ``UNKNOWN_RANGE``, for inputs as ``like`` (N, C, ...).

        Raises ValueError where the preprocessing is for another number of channels.
        """
        channels = like.shape[1]
        if preprocessing is None:
            low, high = (like.new_full((channels,), end) for end in UNKNOWN_RANGE)
            return cls(low, high)
        mean, std = like.new_tensor(preprocessing.mean), like.new_tensor(preprocessing.std)
        if len(mean) != channels:
            raise ValueError(
                f"the preprocessing is for {len(mean)} channels, and the model takes {channels}; give the model's own"
            )
        return cls(-mean / std, (1 - mean) / std)

    def inputs(self, shares: Tensor) -> Tensor:
        """Of shares of the range, 0 to 1, (N, C, *spatial), the inputs."""
        low, high = self._beside(shares)
        return low + shares * (high - low)

    def shares(self, inputs: Tensor) -> Tensor:
        """Inputs (N, C, *spatial) as shares of the range: 0 to 1, and beyond that outside of it."""
        low, high = self._beside(inputs)
        return (inputs - low) / (high - low)

    def _beside(self, values: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, *(1,) * (values.ndim - 2))
        return self.low.to(values).view(shape), self.high.to(values).view(shape)
