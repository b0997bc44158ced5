"""Image files: sorted into one folder per class, or those that a path stands for."""

import glob
import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from idc.data.decoding import image_suffixes
from idc.data.pools import Pool, Source, Split
from idc.data.splits import by_split, split_of
from idc.errors import IDCError

# Folders that systems put beside people's own: hidden ones, __MACOSX, Synology's @eaDir, #recycle, $RECYCLE.BIN.
_NOT_OURS = (".", "__", "@", "#", "$")
_NAMED_NOT_OURS = {"lost+found", "System Volume Information"}


@dataclass(slots=True)
class _LeftOut:
    """What lies in the folders of a source and is not used: counted by kind, files also by name."""

    kinds: Counter[str] = field(default_factory=Counter)
    files: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def file(self, path: Path, root: Path) -> None:
        self.kinds[f"{path.suffix.lower()} files" if path.suffix else "files without a suffix"] += 1
        self.files.append(str(path.relative_to(root)))

    def folder(self, path: Path) -> None:
        if not path.name.startswith("."):
            self.kinds["links to folders" if path.is_symlink() else "system folders"] += 1


def folder_source(root: Path) -> Source:
    """Class folders, directly in `root` or in its split folders. Folders are splits if all of their siblings are; what
    a folder that holds nothing but one other folder stands for is that one.

    Raises:
        IDCError: there are none, one has no images, or a test or validation class is none of train's.
        OSError: a folder cannot be read.
    """
    left_out = _LeftOut()
    inner = _folders(root)
    top = root if len(inner) == 1 and split_of(inner[0].name) else _unwrapped(root)
    siblings = {child.name: child for child in _folders(top, left_out)}
    folders = _split_folders(top, siblings, left_out) or {"train": top}
    has_splits = folders != {"train": top}
    main: Split = "train" if "train" in folders else next(iter(folders))
    names = tuple(folder.name for folder in _folders(folders[main]))
    pools = {split: _folder_pool(root, folder, names, left_out) for split, folder in folders.items()}
    _check_layout(folders[main], names, pools[main])
    return Source(str(root), pools, names, left_out=left_out.kinds, has_splits=has_splits,
                  doubt=_doubt(folders[main], names))  # fmt: skip


def _split_folders(top: Path, siblings: dict[str, Path], left_out: _LeftOut) -> dict[Split, Path]:
    """The folders of class folders, if all siblings are named as splits; none if they are not."""
    found: dict[Split, Path] = {}
    for split, names in (by_split(siblings, str(top)) or {}).items():
        if len(names) > 1:
            raise IDCError(f"{top}: folders {' and '.join(names[:2])}", "one folder a split", "rename or remove one")
        if _folders(siblings[names[0]]):
            found[split] = _unwrapped(siblings[names[0]])
        else:
            left_out.kinds[f"folder {names[0]} without class folders"] += 1
    return found


def images_at(path: Path) -> list[Path]:
    """The image files that a path stands for: all in a folder and in its subfolders, or what matches a pattern (``*``,
    ``**``, ``?``, ``[...]``), as a shell has it, sorted; any other path is itself, whatever it is.

    Raises:
        IDCError: there are none, or a folder cannot be read.
    """
    if not (glob.has_magic(str(path)) or os.path.isdir(path)) or os.path.isfile(path):
        return [path]
    found: set[Path] = set()
    for match in [path] if os.path.isdir(path) else map(Path, glob.glob(str(path), recursive=True)):
        left_out = _LeftOut()
        try:
            found |= {*_image_files(match, match, left_out)} if match.is_dir() else {match}
        except OSError as error:
            raise IDCError(f"{path} ({error.strerror})", "a readable folder", "check its permissions") from error
        found |= {match / name for name in left_out.broken}
    if not found:
        raise IDCError(path, "images in the folder, or a pattern that some match", "check the path")
    return sorted(found)


def has_class_folders(root: Path) -> bool:
    """Whether a folder holds folders with images in them, at any depth."""
    return any(_is_image(Path(name)) for child in _folders(root) for _, _, names in os.walk(child) for name in names)


def _unwrapped(folder: Path) -> Path:
    """Down to the first folder that holds more than one other, as archives are often unpacked."""
    inner = _folders(folder)
    lone = len(inner) == 1 and _folders(inner[0]) and not any(_is_image(file) for file in folder.iterdir())
    return _unwrapped(inner[0]) if lone else folder


def _check_layout(folder: Path, class_names: Sequence[str], pool: Pool) -> None:
    layout = ("one subfolder of images per class", "move each class's images into a folder with its name")
    if not len(pool.labels):
        loose = next((file.name for file in sorted(folder.iterdir()) if _is_image(file)), None)
        has = f"images ({loose}, ...) but no class folders" if loose else "no images"
        raise IDCError(f"{folder} has {has}", *layout)
    if by_split(class_names, str(folder)):
        raise IDCError(f"{folder / class_names[0]} has no class folders", *layout)
    for name, count in zip(class_names, np.bincount(pool.labels, minlength=len(class_names)), strict=True):
        if not count:
            raise IDCError(f"{folder / name} has no images", "images in every class folder", "fill or remove it")


def _doubt(folder: Path, class_names: Sequence[str]) -> str:
    """A sentence if class folders hold no images but folders of the same names, which may be the classes: then the
    folder that was given is the one above."""
    classes = [folder / name for name in class_names]
    common = set.intersection(*({inner.name for inner in _folders(one)} for one in classes))
    if len(classes) < 2 or len(common) < 2 or any(_is_image(file) for one in classes for file in one.iterdir()):
        return ""
    told = ", ".join(sorted(common)[:3]) + (", ..." if len(common) > 3 else "")
    one_of_them = " or ".join(map(str, classes[:3]))
    return f"all of these hold folders of the same names ({told}): if they are the classes, give {one_of_them}"


def _folder_pool(root: Path, folder: Path, class_names: Sequence[str], left_out: _LeftOut) -> Pool:
    files: list[Path] = []
    labels: list[int] = []
    before, broken = len(left_out.files), len(left_out.broken)
    for child in _folders(folder):
        if child.name not in class_names:
            raise IDCError(f"class folder {child}", f"one of train's {len(class_names)} classes", "rename or remove it")
        found = _image_files(child, root, left_out)
        files += found
        labels += [class_names.index(child.name)] * len(found)
    names = [str(file.relative_to(root)) for file in files]

    def key() -> str:
        # Reading every byte would cost a good part of decoding it. A file that changes and keeps its size and time
        # goes unnoticed. The root is part of the key, as files of equal names, sizes and times may lie elsewhere.
        stats = [file.stat() for file in files]
        rows = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in zip(names, stats, strict=True)]
        return hashlib.sha256(json.dumps([str(root.resolve()), rows]).encode()).hexdigest()

    return Pool(np.asarray(labels, dtype=np.int64), files.__getitem__, names.__getitem__, key,
                tuple(left_out.files[before:]), tuple(left_out.broken[broken:]))  # fmt: skip


def _image_files(folder: Path, root: Path, left_out: _LeftOut) -> list[Path]:
    """The images in a folder and in its subfolders, sorted by name within each. Links to folders are not followed."""
    files: list[Path] = []
    for base, folders, names in os.walk(folder, onerror=_raise):
        for name in (inner := [Path(base, name) for name in sorted(folders)]):
            if not _is_ours(name) or name.is_symlink():
                left_out.folder(name)
        folders[:] = [child.name for child in inner if _is_ours(child)]
        for file in (Path(base, name) for name in sorted(names) if not name.startswith(".")):
            if not _is_image(file):
                left_out.file(file, root)
            elif file.is_file():
                files.append(file)
            else:
                left_out.broken.append(str(file.relative_to(root)))
    return files


def _folders(folder: Path, left_out: _LeftOut | None = None) -> list[Path]:
    """The folders in a folder that are people's own, sorted by name."""
    found = sorted(child for child in folder.iterdir() if child.is_dir())
    for child in found if left_out is not None else ():
        if not _is_ours(child) and left_out is not None:
            left_out.folder(child)
    return [child for child in found if _is_ours(child)]


def _is_ours(folder: Path) -> bool:
    return not folder.name.startswith(_NOT_OURS) and folder.name not in _NAMED_NOT_OURS


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in image_suffixes() and not file.name.startswith(".")


def _raise(error: OSError) -> None:
    raise error
