"""Labelled images from anywhere as one uint8 tensor: scikit-learn's digits, image folders, parquet files, hub ids.

Every image is decoded once, to a square of one size, and kept in a memory-mapped cache file; see `load`. The package
knows no model. The way of an image: a source (``sources``, with ``folders``, ``parquet``, ``hub_sets`` and ``tables``)
opens as ``pools`` of images not decoded yet, ``splits`` picks some of them, ``pixels`` has them from the ``cache`` or
from ``decoding``, and ``loading`` ties these together; ``augmentation`` is for training.
"""

from idc.data.augmentation import Augmentation, augment
from idc.data.decoding import decode_image, read_images
from idc.data.folders import images_at
from idc.data.image_set import ImageSet
from idc.data.loading import has_splits, load
from idc.data.pools import Split

__all__ = [
    "Augmentation",
    "ImageSet",
    "Split",
    "augment",
    "decode_image",
    "has_splits",
    "images_at",
    "load",
    "read_images",
]
