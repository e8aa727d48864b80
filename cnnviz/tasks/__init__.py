"""What is built on all of it: confusion matrices, top activations, segmentation, receptive fields. No command line."""
