"""The command ``cnnviz``, also as ``python -m cnnviz``."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line (None: of this process). Returns the exit status: 0, 1 partly done, 2 failed, 130."""
    from cnnviz.cli.app import app
    from cnnviz.cli.errors import guarded

    return guarded(app, files_behind_dashes(sys.argv[1:] if args is None else args))


def files_behind_dashes(words: Sequence[str]) -> list[str]:
    """The words of a command line, in which every word behind ``--`` is a file, whatever it begins with."""
    if "--" not in words:
        return list(words)
    end = list(words).index("--")
    return [*words[:end], *(f"./{word}" if word.startswith("-") and word != "-" else word for word in words[end + 1 :])]


if __name__ == "__main__":
    sys.exit(main())
