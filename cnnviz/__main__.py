"""The command ``cnnviz``, also as ``python -m cnnviz``."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line (None: of this process). Returns the exit status: 0, 1 partly done, 2 failed, 130."""
    from cnnviz.cli.app import app
    from cnnviz.cli.errors import guarded

    return guarded(app, args)


if __name__ == "__main__":
    sys.exit(main())
