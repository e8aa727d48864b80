"""Rules of layer-wise relevance propagation, and composites of them: which layers follow which rule."""

from cnnviz_plugins.relevance.composites import composite as composite
from cnnviz_plugins.relevance.rules import alpha_beta as alpha_beta
from cnnviz_plugins.relevance.rules import epsilon as epsilon
from cnnviz_plugins.relevance.rules import flat as flat
from cnnviz_plugins.relevance.rules import gamma as gamma
from cnnviz_plugins.relevance.rules import w_square as w_square
from cnnviz_plugins.relevance.rules import z_box as z_box
from cnnviz_plugins.relevance.rules import z_plus as z_plus
