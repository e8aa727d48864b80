"""The public names of this room, in one list."""

from .activation_crops import patch_sheet as patch_sheet
from .channel_relevance import TopChannel as TopChannel
from .channel_relevance import TopChannels as TopChannels
from .channel_relevance import top_channels as top_channels
from .concept_sheets import concept_sheet as concept_sheet
from .detection import Detection as Detection
from .detection import Detections as Detections
from .labels import labelled_pictures as labelled_pictures
from .receptive_fields import receptive_field as receptive_field
from .top_activations import TopActivation as TopActivation
from .top_activations import TopActivations as TopActivations
