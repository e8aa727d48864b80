"""Each test of this folder tells its situation, so that the run's last lines can count them; see tests/conftest.py."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _situation(request: pytest.FixtureRequest) -> None:
    """The test, and what its identifier says before the attribution."""
    function, _, case = request.node.name.partition("[")
    situation = case.rpartition(": ")[0] if ": " in case else case.removesuffix("]")
    request.node.user_properties.append(("situation", f"{function} {situation}"))
