"""Training: a recipe says what, the trainer does it."""
