"""The public names of this room, in one list."""

from .items import Item as Item
from .items import Source as Source
from .kept_maps import MapStorage as MapStorage
from .question import TrueClass as TrueClass
from .question import true_class as true_class
from .stored import Batch as Batch
from .stored_explanation import StoredExplanation as StoredExplanation
from .work import Done as Done
from .work import Event as Event
from .work import Failed as Failed
from .work import Job as Job
from .work import Lost as Lost
from .work import Ready as Ready
from .work import RunError as RunError
from .work import Task as Task
from .work import Workers as Workers
