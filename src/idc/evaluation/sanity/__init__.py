"""Checks that an evaluation can be believed."""
