"""Explanations of several inputs of one model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnviz.explanations.explanation import Explanation
from cnnviz.explanations.saving import UNREADABLE, described, read_tensors, restored
from cnnviz.images.in_notebooks import InNotebooks
from cnnviz.images.reading import one_line
from cnnviz.images.writing import packed, write_result

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cnnviz.registry.protocols import Renderer


class JointExplanation(InNotebooks, tuple[Explanation, ...]):
    """Explanations of several inputs of one model, one for each, computed together.

    Where a method has a path or subsets, all inputs move along it together; values of all inputs add up.
    """

    def save(self, path: str | Path, renderer: str | Renderer | None = None, **settings: Any) -> list[Path]:
        """As :meth:`Explanation.save`; pictures are those of the first input, then of the second, and so on."""

        def pictures() -> list[NDArray[np.uint8]]:
            return [picture for each in self for picture in each.render(renderer, **settings)]

        return write_result(path, self._packed, pictures)

    @classmethod
    def load(cls, path: str | Path) -> JointExplanation:
        """Read back what ``save("….safetensors")`` kept. Raises ValueError for a file that holds something else."""
        try:
            tensors, about = read_tensors(path)
            parts = []
            for number, each in enumerate(about["explanations"]):
                own = f"{number}."
                chosen = {name.removeprefix(own): value for name, value in tensors.items() if name.startswith(own)}
                parts.append(restored(chosen, each))
            return cls(parts)
        except KeyError as error:
            reason = f"it has no {error}"
            raise ValueError(f"{path} holds no explanations of several inputs that cnnviz saved: {reason}") from error
        except UNREADABLE as error:
            reason = one_line(error)
            raise ValueError(f"{path} holds no explanations of several inputs that cnnviz saved: {reason}") from error

    def _packed(self) -> bytes:
        contents = [described(each) for each in self]
        # copies: a file can't hold one tensor under two names
        tensors = {
            f"{number}.{name}": value.clone()
            for number, (part, _) in enumerate(contents)
            for name, value in part.items()
        }
        return packed(tensors, {"explanations": [about for _, about in contents]})
