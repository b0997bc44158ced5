"""Evaluation: what a classifier's answers are worth, from a protocol of attacks to a summary with intervals."""
