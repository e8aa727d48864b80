"""The public names of this room, in one list."""

from .attributions import check_attribution as check_attribution
from .backends import check_backend as check_backend
from .drill import Drill as Drill
from .metrics import check_metric as check_metric
from .nets import CLASSES as CLASSES
from .nets import SmallNet as SmallNet
from .package_checks import Check as Check
from .package_checks import checks as checks
from .renderers import check_renderer as check_renderer
from .sanity.on_model import ModelVerdict as ModelVerdict
from .sanity.on_model import check_on_model as check_on_model
from .syntheses import check_synthesis as check_synthesis
