"""What a command that explains pictures found, as rows for ``--json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnnviz.cli.documents import print_document
from cnnviz.cli.errors import Interrupted, print_failure, reason
from cnnviz.explanations.explanation import Explanation

NOTHING = dict.fromkeys(
    ("answer", "method", "recipe", "class_index", "class_name", "objective", "score", "probability", "output", "error")
)


@dataclass(frozen=True)
class Answers:
    """A row for each picture and explanation, and one for each picture that failed."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    more: dict[tuple[Path, str], Mapping[str, Any]] = field(default_factory=dict)
    """What a command measured beside, by picture and name of the explanation."""

    def add(self, picture: Path, name: str, method: str, explanation: Explanation, outputs: Sequence[Path]) -> None:
        """An explanation of one picture, and the files that it is in."""
        index = None if explanation.target is None else int(explanation.target[0])
        objective = explanation.objective[0] if isinstance(explanation.objective, tuple) else explanation.objective
        probability = explanation.told_probability
        self.rows.append(
            {"file": str(picture), "status": "done"}
            | NOTHING
            | {
                "answer": name,
                "method": method,
                "recipe": explanation.recipe,
                "class_index": index,
                "class_name": None if index is None else explanation.name_of(index),
                "objective": objective,
                "score": float(explanation.score[0]),
                "probability": None if probability is None else float(probability[0]),
                "output": [str(path) for path in outputs],
            }
            | dict(self.more.get((picture, name), {}))
        )

    def fail(self, picture: str | Path, error: str) -> None:
        """A picture without an explanation, and why."""
        self.rows.append({"file": str(picture), "status": "failed"} | NOTHING | {"output": [], "error": error})

    def fail_all(self, reasons: Mapping[str, str]) -> None:
        """The pictures that failed, with the reasons; those that are told already stay as they are."""
        told = {row["file"] for row in self.rows if row["status"] == "failed"}
        for picture, why in reasons.items():
            if picture not in told:
                self.fail(picture, why)

    def skip(self, picture: Path, outputs: Sequence[Path]) -> None:
        """A picture whose answers were there already and were kept."""
        kept = {"output": [str(path) for path in outputs]}
        self.rows.append({"file": str(picture), "status": "skipped"} | NOTHING | kept)

    def failed(self, pictures: Sequence[Path]) -> int:
        """How many of the pictures failed."""
        return len({row["file"] for row in self.rows if row["status"] == "failed"} & set(map(str, pictures)))

    @contextmanager
    def printed(self, pictures: Sequence[Path], absent: Mapping[str, str]) -> Iterator[None]:
        """Print a JSON document at the end of the work, in which each picture has a row, whatever happened.

        ``absent`` are paths that are not there, with the reasons.
        """
        try:
            yield
        except Interrupted:
            self.fail_rest(pictures, "interrupted")
            raise
        except Exception as error:
            print_failure(reason(error))
            self.fail_rest(pictures, reason(error))
        finally:
            for path, why in absent.items():
                self.fail(path, why)
            print_document(self.rows)

    def fail_rest(self, pictures: Sequence[Path], error: str) -> None:
        """The pictures without a row, which all have the same reason."""
        told = {row["file"] for row in self.rows}
        for picture in pictures:
            if str(picture) not in told:
                self.fail(picture, error)
