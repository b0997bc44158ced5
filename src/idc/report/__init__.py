"""Reports, their tables and figures: from result files, never models, so that each number leads to a JSON on disk."""
