"""Evaluation: what a classifier's answers are worth, from a protocol of attacks to a summary with intervals."""

BLOCK = 128  # images attacked together: so many that the adaptive attack's groups of like images fill a call
