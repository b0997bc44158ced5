"""What a training is made of: flags, a recipe's file, a model to begin with and the data, put together."""

from dataclasses import dataclass, field, replace
from typing import Any

from idc import data as datasets
from idc.commands import defaults
from idc.commands.plugins import is_plugin
from idc.errors import IDCError
from idc.method.bridge import BridgeSpec
from idc.method.classifier import IDC
from idc.method.presets import PRESETS, load_network, resolve_spec
from idc.method.unet import UNetSpec
from idc.storage.fields import recorded, take
from idc.storage.saved import open_saved
from idc.training.recipe import ATTACK_SETTINGS, ONE_STEP, RECIPES, Recipe, load_recipe, usual_recipe, without_eps
from idc.training.settings import override


@dataclass(frozen=True, slots=True)
class Asked:
    """What a user asked for beside data: the arguments of ``start_training`` of these names; None: not asked."""

    start: str | None
    preset: str
    labels: str | None
    label_cell: int | None
    visits: tuple[int, ...] | None
    recipe: str
    objective: str | None
    resume: bool
    changes: dict[str, Any]

    @property
    def one_step(self) -> bool:
        """Whether nothing speaks against an answer in one step: no recipe, no model to begin with, whose answer is
        kept, no other timesteps, and no network with a decoder, as the paper's for its chain."""
        if self.recipe != "auto" or self.start or self.visits not in (None, defaults.VISITS):
            return False
        if self.changes.get("rollout") or self.changes.get("t_weights") not in (None, ONE_STEP.t_weights):
            return False
        return self.preset == "auto" or not load_network(self.preset).decoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A training before its network is built.

    Attributes:
        source: the data, see ``idc.data.load``.
        recipe: its settings, and ``extra``, what a recipe's file says besides.
        preset: the network's name, and ``spec``, the network.
        by_data: whether what nothing is said of, of network, labels and schedule, is to follow from the data.
        start: name of the model that it begins with, ``begun``, if any.
    """

    source: str
    recipe: Recipe
    extra: dict[str, Any]
    preset: str
    spec: UNetSpec
    by_data: bool
    start: str = ""
    begun: IDC | None = None
    bridge: BridgeSpec = field(default_factory=BridgeSpec)
    labels: str = "qr"
    cell: int = 1
    visits: tuple[int, ...] = ()
    objective: str | None = None


def read_plan(data: str | None, asked: Asked) -> Plan:
    """All that is known before the data are read.

    Raises:
        IDCError: for a recipe, a model or a network that cannot be used.
    """
    name = asked.recipe if asked.recipe != "auto" else usual_recipe(data or "digits")
    recipe, extra = load_recipe(name, data)
    recipe = override(recipe, asked.changes)
    idle = [name for name in ATTACK_SETTINGS if name in asked.changes]
    if idle and not recipe.eps and "eps" not in asked.changes and not asked.resume:
        raise without_eps(idle[0], getattr(recipe, idle[0]))
    start = asked.start or extra.get("from")
    begun = open_saved(start, IDC) if start else None
    extra = _as_begun(begun, extra) if begun else extra
    source = data or str(extra.get("data", "digits"))
    by_data = asked.one_step and source != "digits"
    own = "digits" if source == "digits" else defaults.PRESET if by_data else "nano"
    usual = "custom" if "network" in extra else own
    preset = asked.preset if asked.preset != "auto" else str(extra.get("preset", usual))
    given = asked.preset == "auto" and "network" in extra
    return Plan(
        source=source, recipe=recipe, extra=extra, preset=preset, start=start or "", begun=begun,
        spec=resolve_spec(extra["network"]) if given else load_network(preset),
        by_data=by_data,
    )  # fmt: skip


def fit_plan(plan: Plan, asked: Asked, train: datasets.ImageSet) -> Plan:
    """``plan`` with all that the training images decide, and bridge, labels, visits and objective by flag or file.

    Raises:
        IDCError: for fields of a bridge that there are not, or code that a file names.
    """
    spec, recipe, extra = plan.spec, plan.recipe, plan.extra
    if plan.by_data:
        spec = defaults.usual_network(train.shape[1]) if plan.preset == defaults.PRESET else spec
        extra = defaults.usual_labels(train, spec, kind=asked.labels, cell=asked.label_cell)
        recipe = override(defaults.usual_schedule(len(train), asked.changes.get("epochs")), asked.changes)
    labels = _chosen("labels", asked.labels, extra) or "qr"
    cell = extra.get("label_cell", 1) if asked.label_cell is None else asked.label_cell
    visits = tuple(extra.get("visits", ()) if asked.visits is None else asked.visits)
    bridge = BridgeSpec(**take(BridgeSpec, extra.get("bridge", {}), what="bridge field"))
    named = asked.recipe == "auto" or asked.recipe in RECIPES
    if spec.one_step and named and "t_weights" not in asked.changes:
        recipe = replace(recipe, t_weights=(0.0,) * (bridge.timesteps - 1) + (1.0,))  # there is no other choice
    return replace(
        plan, spec=spec, recipe=recipe, extra=extra, bridge=bridge, labels=labels, cell=cell,
        objective=_chosen("objective", asked.objective, extra),
        visits=visits,
    )  # fmt: skip


def about_run(plan: Plan, model: IDC) -> dict[str, Any]:
    """What the run's recipe.yaml and the model's card say beside the settings. Of most things only what is not the
    default, so that runs from before there was a choice go on."""
    about: dict[str, Any] = {
        "data": plan.source,
        "preset": plan.preset if plan.preset in PRESETS else "custom",
        "network": recorded(model.config.unet),
    }
    about |= {"bridge": recorded(plan.bridge)} if plan.bridge != BridgeSpec() else {}
    about |= {"visits": list(plan.visits)} if plan.visits else {}
    about |= {"labels": plan.labels} if plan.labels != "qr" else {}
    about |= {"label_cell": plan.cell} if plan.cell != 1 else {}
    about |= {"labels_sha256": model.labels_sha256} if is_plugin(plan.labels) else {}
    about |= {"objective": plan.objective} if plan.objective else {}
    return about | ({"from": plan.start} if plan.start else {})


def _chosen(name: str, given: str | None, extra: dict[str, Any]) -> str | None:
    """A setting by its flag, else from the recipe's file; which code is run a flag alone says."""
    found = given or extra.get(name)
    if given is None and is_plugin(found):
        raise IDCError(f"{name}: {found} in a recipe", "the same as a flag: no file runs code", f"add --{name} {found}")
    return found


def _as_begun(model: IDC, extra: dict[str, Any]) -> dict[str, Any]:
    """What a recipe's file says besides its settings, with that of ``model`` for what it leaves out."""
    config = model.config
    channels, height, width = config.image_shape
    own: dict[str, Any] = {
        "network": recorded(config.unet), "bridge": recorded(config.bridge), "visits": list(config.visits),
        "labels": config.label_kind, "label_cell": config.label_cell, "channels": channels,
    }  # fmt: skip
    own |= {"image_size": height} if height == width else {}
    if "preset" in extra:
        del own["network"]
    return own | extra
