"""What a source holds, in a line for people: splits, classes, counts, what was held out and what is left out."""

from collections.abc import Sequence

from idc.data.decoding import Shape
from idc.data.pools import Source, Split
from idc.data.splits import choose
from idc.errors import IDCError

_NAMED = 10  # classes that are named
_SHOWN = 5  # kinds of files that are


def summarise(
    source: Source,
    split: Split,
    images: int,
    shape: Shape,
    validation_fraction: float = 0.1,
    seed: int = 0,
    *,
    scaled: str = "",
    absent: Sequence[str] = (),
) -> str:
    """For example: "photos: 8 classes (broom, desk, ...); no splits of its own: train 2,304, validation 256 (held out
    by us), test 640 (held out by us); taken: 640 of test at 3x32x32, scaled from 300 to 4000 pixels a side
    (--image-size sets another size); left out: 12 .heic files". Doubts follow on lines of their own.

    Args:
        source: what was opened.
        split, images, shape: what was taken of it.
        validation_fraction, seed: of ``load``.
        scaled: what the images are scaled from.
        absent: classes of which none was taken.
    """
    names = ", ".join(source.class_names[:_NAMED]) + (", ..." if len(source.class_names) > _NAMED else "")
    counts = _counts(source, split, validation_fraction, seed)
    kept = source.pools if source.has_splits else ("train", "all")  # the others are cut out of train
    told = ", ".join(
        f"{name} {count:,}" + ("" if name in kept else " (held out by us)") for name, count in counts.items()
    )
    own = told if source.has_splits else f"no splits of its own: {told}"
    taken = f"all {images:,} images" if counts == {"all": images} else f"{images:,} of {split}"
    text = f"{source.name}: {len(source.class_names)} classes ({names}); {own}; taken: {taken} at {_size(shape)}"
    if scaled:
        text += f", scaled from {scaled}"
    kinds = source.left_out.most_common()
    if kinds:
        shown = ", ".join(f"{count:,} {kind}" for kind, count in kinds[:_SHOWN]) + (", ..." if kinds[_SHOWN:] else "")
        text += f"; left out: {shown}"
    notes = [source.doubt] if source.doubt else []
    if absent:
        notes.append(f"no image of {', '.join(absent[:_NAMED])}{', ...' * (len(absent) > _NAMED)} is among these")
    return "\nnote: ".join([text, *notes])


def _size(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _counts(source: Source, taken: Split, validation_fraction: float, seed: int) -> dict[str, int]:
    if taken == "all":
        return {"all": len(source.pools["train"].labels)}
    found: dict[str, int] = {}
    splits: tuple[Split, ...] = ("train", "validation", "test")
    for split in splits:
        try:
            found[split] = len(choose(source, split, validation_fraction, seed)[1])
        except IDCError:  # a split that the source does not have, or whose labels are hidden
            continue
    return found
