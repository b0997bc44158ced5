"""Evaluation: what a classifier's answers are worth."""

BLOCK = 128  # images attacked together: so many that the adaptive attack's groups of like images fill a call
