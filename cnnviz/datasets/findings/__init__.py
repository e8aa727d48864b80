"""What the maps of a data set say together."""
