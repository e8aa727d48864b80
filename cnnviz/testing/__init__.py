"""What every method owes its users, checked from a plugin's own tests::

    import pytest
    from cnnviz.testing import checks

    @pytest.mark.parametrize("check", checks("my-package"))
    def test_promises(check):
        check()

Each promise of each method of the package is a test of its own. ``check_attribution`` and the others check one method
in one call. A broken promise is an AssertionError that names it. No test framework is needed.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
