"""What every method owes its users, checked in one call from a plugin's own tests.

    from cnnviz.testing import check_attribution, check_metric, check_renderer, check_synthesis

    def test_my_method() -> None:
        check_attribution("my_method")

A broken promise is an AssertionError that names it. No test framework is needed.
"""

from cnnviz.testing.attributions import check_attribution as check_attribution
from cnnviz.testing.metrics import check_metric as check_metric
from cnnviz.testing.nets import CLASSES as CLASSES
from cnnviz.testing.nets import SmallNet as SmallNet
from cnnviz.testing.renderers import check_renderer as check_renderer
from cnnviz.testing.syntheses import check_synthesis as check_synthesis
