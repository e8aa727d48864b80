"""The public names of this room, in one list."""

from .prediction import Prediction as Prediction
from .segmentation_net import SegmentationNet as SegmentationNet
from .segmentation_net import intersection_over_union as intersection_over_union
