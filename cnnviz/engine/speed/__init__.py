"""How a pass may be computed faster with results equal up to rounding. Nothing here changes what is computed."""
