"""Pages, messages and code use the field's words, none of those that only this project ever used."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What is said in their place: decoder, encoder; fix; robust, survives the attack; misclassified; adversarial example;
# setting; shared (a forward pass), not attacked again (an image).
WORDS = (
    r"ways? (up|down)", r"mend(s|ed|ing)?", r"withst(and|ands|anding|ood)", r"fallen", r"worst points?", r"knobs?",
    r"spare(s|d)?",
)  # fmt: skip
# Names of recorded fields, which results on disk have: forward passes whose part without noise another draw had made,
# and images that are not attacked again at a smaller radius.
RECORDED = ("spared", "SPARED", "knobs")
PLACES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**/*.md", "src/**/*.py", "src/**/*.html",
          "examples/*.py", "src/idc/zoo/*/README.md", "recipes/**/*.yaml")  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_no_private_word(place):
    files = [file for file in ROOT.glob(place) if "_build" not in file.parts]
    assert files
    pattern = re.compile(rf"(?<![\w-])({'|'.join(WORDS)})(?![\w-])", re.IGNORECASE)
    found = [
        f"{file.relative_to(ROOT)}:{number}: {match[0]}"
        for file in files
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        for match in pattern.finditer(line)
        if not (file.suffix == ".py" and match[0] in RECORDED)
    ]
    assert found == []
