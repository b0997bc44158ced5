"""Training: a recipe says what, an objective (``bridge_objective`` is IDC's) has the loss, the trainer is the loop."""
