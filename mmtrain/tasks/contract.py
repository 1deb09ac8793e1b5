"""What a task is: which knobs it presets (config/presets.py), and how its answers are found and scored."""

from typing import Protocol

from mmtrain.config.schema import RunConfig
from mmtrain.data.heldout import HeldOut
from mmtrain.engine.build import Place
from mmtrain.engine.contract import Scorer


class Task(Protocol):
    """What a run is for. The data and the objective follow from its knobs; this says how its answers are judged."""

    name: str  # as in task.name

    def scorer(self, plan: RunConfig, place: Place, heldout: HeldOut) -> Scorer:
        """What scores a model of this run."""
        ...
