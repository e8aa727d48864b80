"""One pass through a model and its gradients under rules: the only room that calls a model. It knows no target."""
