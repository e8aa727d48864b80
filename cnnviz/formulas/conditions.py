"""Conditions on values, for methods: what is refused or told of them does not make Python wait for a device."""

from cnnviz.engine.deferred import reads_at_once as reads_at_once
from cnnviz.engine.deferred import require as require
from cnnviz.engine.deferred import tell_if as tell_if
from cnnviz.engine.deferred import uploaded as uploaded
