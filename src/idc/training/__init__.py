"""Training: a recipe says what, an objective (``bridging`` is IDC's) has the loss, the trainer is the loop."""
