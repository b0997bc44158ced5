"""Attacks know tensors and a function images in [0, 1] -> logits; never a classifier's inside, never a data set."""
