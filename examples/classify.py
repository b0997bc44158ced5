"""Train for a few seconds on digits and classify: python examples/classify.py"""

import tempfile
from pathlib import Path

from idc import IDC
from idc import data as datasets
from idc.commands.train import start_training

with tempfile.TemporaryDirectory() as folder:
    result = start_training("digits", Path(folder) / "run", changes={"epochs": 4, "validate_every": 4})
    model = IDC.from_pretrained(result.best)
    test = datasets.load("digits", split="test", limit=5)
    prediction = model.predict(test.images.float() / 255)
    for truth, name, agreement in zip(
        test.labels.tolist(), prediction.names, prediction.agreement.tolist(), strict=True
    ):
        print(f"digit {truth}: answer {name}, {agreement:.0%} of draws agree")
