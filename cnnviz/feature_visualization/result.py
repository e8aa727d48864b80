"""The result of a synthesis, with what is needed to read, draw and save it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cnnviz.drawing.input_images import draw_inputs
from cnnviz.images.in_notebooks import InNotebooks
from cnnviz.images.preprocessing import Preprocessing
from cnnviz.images.writing import packed, write_result


@dataclass(frozen=True, eq=False)
class Synthesized(InNotebooks):
    """Inputs that a synthesis made for a model, N of them."""

    inputs: Tensor
    """(N, C, *spatial) as the model sees them."""
    history: Tensor
    """(steps, N): the objective at each step."""
    recipe: str
    """The synthesis and its settings, as a user would write it."""
    snapshots: Mapping[int, Tensor] = field(default_factory=dict)
    """Inputs (N, C, *spatial) on the way, by the number of steps made; their spatial size may differ."""
    finished: bool = True
    """False if the synthesis was interrupted; the inputs are those of the last step."""
    preprocessing: Preprocessing | None = None
    """Turns ``inputs`` back into pictures."""
    notes: Mapping[str, Tensor] = field(default_factory=dict)
    """What the synthesis measured, such as ``relative_error`` (N,)."""

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.inputs.shape))
        interrupted = "" if self.finished else "; interrupted"
        return f"Synthesized({self.recipe}; {shape}, {len(self.history)} steps{interrupted})"

    def outcome(self) -> str:
        """How the objective rose, such as ``rose from 0.2 to 3050 in 256 steps``; of several their mean."""
        if not len(self.history):
            return "took no steps"
        first, last = (f"{float(values.mean()):.4g}" for values in (self.history[0], self.history[-1]))
        rose = f"rose from {first} to {last}" if first != last else f"stayed at {last}"
        notes = "".join(f", {name} {float(note.mean()):.3g}" for name, note in self.notes.items())
        interrupted = "" if self.finished else ", interrupted"
        return f"{rose} in {len(self.history)} steps{notes}{interrupted}"

    def pictures(self, contrast: float = 1.0) -> NDArray[np.uint8]:
        """Pictures (N, H, W, 3), uint8: images in their own colours, signals as lines, volumes as slices.

        An image with values beyond what the preprocessing makes of pictures is stretched from its lowest to its
        highest. ``contrast`` multiplies the distance from the mean gray, as in Pillow.
        """
        return draw_inputs(self.inputs, self.preprocessing, contrast)

    def show(self) -> None:
        """Open the pictures, side by side, in the viewer of the desktop."""
        from PIL import Image

        Image.fromarray(_side_by_side(self.pictures())).show()

    def save(self, path: str | Path, contrast: float = 1.0) -> list[Path]:
        """Write pictures, or with the suffix ``.safetensors`` the inputs with their history.

        Several become ``name-0.png``, ``name-1.png``, ...; a file appears whole or not at all.
        Returns the files written. Raises ValueError for a suffix that is neither.
        """
        return write_result(path, self._packed, lambda: list(self.pictures(contrast)))

    def _packed(self) -> bytes:
        tensors = {"inputs": self.inputs, "history": self.history}
        tensors |= {f"note.{name}": note for name, note in self.notes.items()}
        tensors |= {f"snapshot.{step}": inputs for step, inputs in self.snapshots.items()}
        about = {
            "recipe": self.recipe,
            "finished": self.finished,
            "preprocessing": self.preprocessing.as_dict() if self.preprocessing else None,
        }
        return packed(tensors, about)


def _side_by_side(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate(list(pictures), axis=1)
