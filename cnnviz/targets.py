"""The public names of targets: what ``explain(target=...)`` explains beside classes and functions of the output.

They are objectives too: they add, subtract, multiply and divide, also with those of :mod:`cnnviz.objectives`.
"""

from cnnviz.run.box_target import box as box
from cnnviz.run.box_target import matching as matching
from cnnviz.run.dense_targets import region as region
from cnnviz.run.output_targets import OutputTarget as OutputTarget
from cnnviz.run.output_targets import against as against
from cnnviz.run.output_targets import similar as similar
from cnnviz.run.output_targets import value as value
from cnnviz.run.plain_pass import PlainPass as PlainPass
from cnnviz.run.resolve_target import several as several
from cnnviz.run.resolve_target import top as top
