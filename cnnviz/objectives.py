"""The public names of objectives: what ``explain(target=...)`` explains, and what a synthesis makes inputs for."""

from cnnviz.engine.feature_extraction import Seen as Seen
from cnnviz.run.objectives import Objective as Objective
from cnnviz.run.objectives import channel as channel
from cnnviz.run.objectives import class_score as class_score
from cnnviz.run.objectives import closeness as closeness
from cnnviz.run.objectives import direction as direction
from cnnviz.run.objectives import diversity as diversity
from cnnviz.run.objectives import feature_distance as feature_distance
from cnnviz.run.objectives import feature_map as feature_map
from cnnviz.run.objectives import layer_energy as layer_energy
from cnnviz.run.objectives import neuron as neuron
from cnnviz.run.objectives import output_of as output_of
from cnnviz.run.objectives import strongest as strongest
from cnnviz.run.regularizers import alpha_norm as alpha_norm
from cnnviz.run.regularizers import l2 as l2
from cnnviz.run.regularizers import total_variation as total_variation
