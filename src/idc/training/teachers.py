"""Trained classifiers whose answer is a part of what another one is trained towards.

Zi et al., "Revisiting Adversarial Robustness Distillation: Robust Soft Labels Make Student Better", ICCV 2021: what a
robust network answers to an image as it is says more of the image than its class.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from idc.data import ImageSet
from idc.errors import IDCError
from idc.method.calibration import temperature
from idc.method.classifier import IDC
from idc.peers.cnn import CNN
from idc.storage.files import digest
from idc.storage.saved import open_saved
from idc.training.objective import check_fits

_ASKED = 500  # training images by which a teacher's temperature is found


class Teachers:
    """Saved classifiers that answer together, an IDC in one step.

    Logits of two kinds of classifier have no scale in common, so each is asked for the classes of images of the
    training first: its temperature is the one for which these are likeliest.

    Args:
        names: of saved IDCs and CNNs, see ``open_saved``.

    Raises:
        IDCError: for a name of none.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        opened = [open_saved(name, IDC, CNN).requires_grad_(False) for name in names]
        self.models = [model.one_step if isinstance(model, IDC) else model for model in opened]  # which draw no noise
        self.weights = [digest(model.weights_sha256)[:16] for model in opened]

    def check(self, train: ImageSet) -> None:
        """Take note of the classes of ``train``, and of a few of its images.

        Raises:
            IDCError: for a teacher of other images or other classes.
        """
        for name, model in zip(self.names, self.models, strict=True):
            channels, height, _ = model.input_shape
            whose, size = f"the teacher {name}", f"--image-size {height} --channels {channels}"
            remedy = f"take teachers of such images, or give {size}"
            check_fits(train, model.input_shape, model.num_classes, of=whose, remedy=remedy)
            if lacking := sorted(set(train.class_names) - set(model.class_names)):
                given = f"classes such as {lacking[0]}, which {whose} does not know"
                raise IDCError(given, f"its own: {', '.join(model.class_names[:10])}", "take teachers of these classes")
        # (K,) of each teacher: its own number of every class of the training.
        self.columns = [torch.tensor([*map(model.class_names.index, train.class_names)]) for model in self.models]
        self.some = train.take(_ASKED)

    def to(self, device: torch.device, *, bf16: bool) -> None:
        """Move them, find their temperatures, and have their networks compute in half precision or not."""
        self.columns = [columns.to(device) for columns in self.columns]
        some = self.some.to(device)
        images, self.temperatures = some.images.float().div(255), []
        for model, columns in zip(self.models, self.columns, strict=True):
            model.to(device)
            model.bf16 = False
            with torch.no_grad():
                logits = torch.cat([model(part)[:, columns] for part in images.split(100)])
            self.temperatures.append(temperature(-logits, some.labels))
            model.bf16 = bf16
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=bf16)

    @torch.no_grad()
    def __call__(self, images: Tensor, *, heat: float) -> Tensor:
        """The mean of their probabilities, (B, K).

        Args:
            images: (B, C, H, W) in [0, 1].
            heat: by what each one's temperature is multiplied; above 1 the answer is softer.
        """
        found = []
        for model, columns, own in zip(self.models, self.columns, self.temperatures, strict=True):
            if isinstance(model, IDC):  # whose network alone is in half precision, not the distances
                logits = model(images)
            else:
                with self.autocast:
                    logits = model(images)
            found.append((logits[:, columns] / (own * heat)).softmax(1))
        return torch.stack(found).mean(0)
