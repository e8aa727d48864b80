"""The public names of this room, in one list."""

from .annotated import Labels as Labels
from .annotated import mask_file as mask_file
from .items import Item as Item
from .items import Source as Source
from .kept_maps import MapStorage as MapStorage
from .label_classes import LabelClasses as LabelClasses
from .label_classes import class_of_labels as class_of_labels
from .question import TrueClass as TrueClass
from .question import true_class as true_class
from .sources import source_from_described as source_from_described
from .sources import source_of as source_of
from .stored import Batch as Batch
from .stored_explanation import StoredExplanation as StoredExplanation
from .task_outcome import attempt as attempt
from .task_outcome import told as told
from .unique import checked_items as checked_items
from .work import Done as Done
from .work import Event as Event
from .work import Failed as Failed
from .work import Job as Job
from .work import Lost as Lost
from .work import Ready as Ready
from .work import RunError as RunError
from .work import Task as Task
from .work import Workers as Workers
