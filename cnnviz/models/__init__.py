"""Networks by name, their weights, and the segmentation network. Nothing here runs a model or explains one."""
