"""What is told of a file or an input that can be read, and is hardly what was meant."""

from __future__ import annotations

import threading
import warnings

filters = threading.Lock()
"""Warning filters belong to the whole process: who changes them for a moment holds this, and so does who warns."""


class InputWarning(UserWarning):
    """An input can be explained, and its values are hardly what the network was trained on.

    The command line prints it as a line on standard error.
    """


def tell(text: str) -> None:
    """Warn, from any thread."""
    with filters:
        warnings.warn(text, InputWarning, stacklevel=3)
