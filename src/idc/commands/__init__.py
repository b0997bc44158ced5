"""One file a verb: from a request to a result."""
