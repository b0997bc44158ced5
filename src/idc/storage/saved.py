"""Models that save themselves into a folder and come back from it bit for bit, or not at all."""

import math
from collections.abc import Callable
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError
from torch import Tensor, nn

from idc import __version__
from idc.errors import IDCError
from idc.storage.fields import recorded, short
from idc.storage.locate import locate
from idc.storage.model_folder import card_lines, misfit, read_config, read_state, shapes, weights_files, write
from idc.storage.tensor_file import check_weights
from idc.types import ClassifierDefaults

STORED = ("fp32", "bf16")  # the precisions of a weights file


class SavedModel(nn.Module, PyTorchModelHubMixin):
    """A model that is its config, a frozen dataclass, and the weights of one network.

    Args:
        config: all that defines the model but its weights.
    """

    key: ClassVar[str]  # under which config.json has the config: it says which kind of model a folder holds
    part: ClassVar[str]  # the attribute that holds the network

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.card: dict[str, Any] = {}  # what a model card says beyond the config: data, recipe, figures
        self.weights_sha256: Any = None  # of the file, or of each shard by its name, that it was opened from

    @property
    def trained(self) -> nn.Module:
        """The network, by the name that it has in all kinds."""
        found: nn.Module = getattr(self, self.part)
        return found

    def with_network(self, network: nn.Module) -> Self:
        """This model with another network of the same shape, such as averaged weights. Nothing is copied."""
        other = copy(self)
        other._modules, other._buffers = self._modules.copy(), self._buffers.copy()  # which copy() leaves shared
        setattr(other, self.part, network)
        return other

    # -- what each kind says of itself ---------------------------------------------------------------------------------

    @staticmethod
    def read(values: dict[str, Any]) -> Any:
        """The config of what ``fields.recorded`` wrote of it.

        Raises:
            KeyError, TypeError, ValueError, IDCError: for values that do not make one.
        """
        raise NotImplementedError

    @staticmethod
    def build(config: Any) -> nn.Module:
        """The network of a config, with fresh weights."""
        raise NotImplementedError

    @staticmethod
    def extent(config: Any) -> tuple[int, int]:
        """Blocks and channels that the network has at least: each block has a tensor, each channel a number."""
        raise NotImplementedError

    @staticmethod
    def beside(config: Any) -> dict[str, tuple[int, ...]]:
        """Name and shape of what is saved beside the network; the class takes each by its name."""
        return {}

    def card_head(self) -> list[str]:
        """Lines of a model card from its title on: what the config says."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """What else config.json says, for ``verify`` to compare."""
        return {}

    def verify(self, values: dict[str, Any], folder: Path) -> None:
        """Compare this model, as it was loaded, with the facts of the one that was saved.

        Raises:
            IDCError: if they differ.
        """

    # -- files ---------------------------------------------------------------------------------------------------------

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        dtype: str = "fp32",
        push_to_hub: bool = False,
        repo_id: str | None = None,
        model_card_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> str | None:
        """Save config, weights and model card into a folder, from which ``from_pretrained`` loads them.

        Args:
            save_directory: the folder.
            dtype: of the file: "fp32" as they are, or "bf16": half the size, each parameter rounded to 8 bits of
                mantissa (not the statistics of BatchNorm). Loading gives float32 weights in either case; this model's
                own stay as they are.
            push_to_hub: upload the same files.
            repo_id: where to; by default the name of the folder.
            model_card_kwargs: as huggingface_hub passes them on; a "dtype" in them counts.
            options: of huggingface_hub's ``ModelHubMixin.push_to_hub``.

        Returns:
            The address of the commit if it is pushed, else None.

        Raises:
            IDCError: for another dtype, or if the folder cannot be written.
        """
        dtype = (model_card_kwargs or {}).get("dtype", dtype)
        if dtype not in STORED:
            raise IDCError(f"dtype {dtype!r}", f"one of {', '.join(STORED)}", "correct it")
        values = {"idc_version": __version__, self.key: recorded(self.config), **self.facts(), "card": self.card}
        write(Path(save_directory), self._stored(dtype), values, self._card_text(dtype))
        if not push_to_hub:
            return None
        # It saves once more, into a folder of its own, and hands on nothing but these.
        return self.push_to_hub(repo_id or Path(save_directory).name, model_card_kwargs={"dtype": dtype}, **options)

    def _stored(self, dtype: str) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state_dict()
        if dtype == "bf16":  # not BatchNorm's statistics: few, and divided by
            rounded = (name for name, _ in self.named_parameters(remove_duplicate=False))
            state |= {name: state[name].bfloat16() for name in rounded}
        return state

    def _card_text(self, dtype: str) -> str:
        parameters = sum(p.numel() for p in self.parameters())
        count = f"- Parameters: {parameters:,}" + (f" (stored in {dtype})" if dtype != "fp32" else "")
        return "\n".join([*self.card_head(), count, *card_lines(self.card)])

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the mixin's own would look a mistyped local path up on the hub
        cls, source: str | Path, *, device: str | torch.device = "cpu", **options: Any
    ) -> Self:
        """Load a saved model, in evaluation mode.

        Args:
            source: a folder written by ``save_pretrained``, the name of a model that comes with the package (``idc
                models``), or a hub id ``owner/name``; a folder of that name comes first. What looks like a path is
                never looked up on the hub.
            device: where the weights go; huggingface_hub's word for it, ``map_location``, is taken too.
            options: of a hub id, as huggingface_hub has them: ``revision`` (a branch, tag or commit), ``cache_dir``,
                ``token``, ``local_files_only``, ``force_download``.

        Raises:
            IDCError: if a file is missing, truncated, edited or does not fit, never a wrong model; for another option.
        """
        return open_saved(source, cls, device=device, **options)


class SavedClassifier(SavedModel, ClassifierDefaults):
    """A saved model that is a ``Classifier``; its config says the classes and the shape of images."""

    @property
    def num_classes(self) -> int:
        return int(self.config.num_classes)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.config.image_shape
        return channels, height, width

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.config.class_names)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (getattr(self, self.part),)


M = TypeVar("M", bound=SavedModel)


def open_saved(source: str | Path, *kinds: type[M], device: str | torch.device = "cpu", **options: Any) -> M:
    """The saved model that a folder, a run, a packaged name or a hub id holds, whichever of ``kinds`` it is.

    Other arguments and errors as for ``SavedModel.from_pretrained``.
    """
    place = device_of(options.pop("map_location", device))
    folder = locate(str(source), **options)
    values = read_config(folder, [kind.key for kind in kinds])
    kind = next(kind for kind in kinds if kind.key in values)
    files = weights_files(folder, values)
    try:
        config = kind.read(values[kind.key])
        _compare(kind, config, shapes(*files))
        # What follows from no setting comes with the weights: a file that names code does not run it.
        model = kind(config, **{name: torch.zeros(shape) for name, shape in kind.beside(config).items()})
        state = read_state(files)
        check_weights(state, model.state_dict())
        model.load_state_dict(state)
        model.verify(values, folder)
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise misfit(folder, error) from error
    model.card, model.weights_sha256 = values.get("card", {}), values["weights_sha256"]
    return model.eval().to(place)


def device_of(device: object) -> torch.device:
    """The device that a word means.

    Raises:
        IDCError: if there is none.
    """
    try:
        found = torch.device(device)  # type: ignore[call-overload]  # what it cannot be is refused below
        torch.empty(0, device=found)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise IDCError(f"device {short(device)}", "one that is here, such as cpu or cuda:0", "correct it") from error
    return found


def _compare(kind: type[SavedModel], config: Any, held: dict[str, tuple[int, ...]]) -> None:
    """Refuse a network that weights files do not have, before any memory is taken for it.

    Raises:
        ValueError: which says where they differ.
    """
    (blocks, channels), numbers = kind.extent(config), sum(map(math.prod, held.values()))
    if blocks > len(held) or channels > numbers:  # so much that its description alone might not fit
        asked = f"it asks for {blocks} blocks of up to {channels} channels"
        raise ValueError(f"{asked}, the file has {len(held)} tensors of {numbers} numbers")
    wanted = {f"{kind.part}.{name}": shape for name, shape in _built(kind.build, config).items()}
    wanted |= kind.beside(config)
    for name in sorted(wanted.keys() | held.keys()):
        if wanted.get(name) != held.get(name):
            sizes = ["x".join(map(str, s[name])) or "a number" if name in s else "nothing" for s in (held, wanted)]
            raise ValueError(f"{name}: {sizes[0]} in the file, {sizes[1]} in the network")


@lru_cache(maxsize=32)
def _built(build: Callable[[Any], nn.Module], config: Any) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in a network's state, none of which is allocated."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in build(config).state_dict().items()}
