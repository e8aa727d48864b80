"""What every method owes its users, checked from a plugin's own tests::

    import pytest
    from cnnviz.testing import checks

    @pytest.mark.parametrize("check", checks("my-package"))
    def test_promises(check):
        check()

Each promise of each method of the package is a test of its own. ``check_attribution`` and the others check one method
in one call. A broken promise is an AssertionError that names it. No test framework is needed.
"""

from cnnviz.testing.attributions import check_attribution as check_attribution
from cnnviz.testing.checks import Check as Check
from cnnviz.testing.checks import checks as checks
from cnnviz.testing.metrics import check_metric as check_metric
from cnnviz.testing.nets import CLASSES as CLASSES
from cnnviz.testing.nets import SmallNet as SmallNet
from cnnviz.testing.renderers import check_renderer as check_renderer
from cnnviz.testing.syntheses import check_synthesis as check_synthesis
