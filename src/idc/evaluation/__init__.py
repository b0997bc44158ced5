"""Evaluation: what a classifier's answers are worth."""
