"""Applications of explanations: confusion matrices, top activations, segmentation, receptive fields. No commands."""
