"""The systems that IDC is compared with, each only a ``Classifier``."""
