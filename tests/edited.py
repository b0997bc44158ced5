"""Saved models that were edited or damaged."""

import json

from idc.storage.files import digest
from idc.storage.model_folder import CONFIG


def edit_config(folder, change, *, sign=True):
    """Change what a config says; ``sign`` it as if it had been written so."""
    values = json.loads((folder / CONFIG).read_text())
    change(values)
    if sign:
        values.pop("config_sha256")
        values["config_sha256"] = digest(values)
    (folder / CONFIG).write_text(json.dumps(values))


def flip_byte(file, where):
    content = bytearray(file.read_bytes())
    content[where] ^= 1
    file.write_bytes(content)
