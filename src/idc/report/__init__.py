"""Reports read result files, never models: a number in a figure can be traced to a JSON on disk."""
