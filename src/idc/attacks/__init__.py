"""Attacks, a file a family; one that is added here gets its name in a protocol of `idc.evaluation.protocol`.

They know tensors and a function images in [0, 1] -> logits; never a classifier's inside, never a data set.
"""
