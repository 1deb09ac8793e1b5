"""The tasks by name."""

from mmtrain.config.schema import RunConfig
from mmtrain.data.heldout import HeldOut
from mmtrain.engine.build import Place
from mmtrain.engine.contract import Scorer
from mmtrain.tasks.caption import Captioning
from mmtrain.tasks.contract import Task
from mmtrain.tasks.pretraining import Pretraining
from mmtrain.tasks.retrieval import Retrieval
from mmtrain.tasks.vqa import QuestionAnswering

TASKS: dict[str, Task] = {task.name: task for task in (Pretraining(), Captioning(), QuestionAnswering(), Retrieval())}


def build_scorer(plan: RunConfig, place: Place, heldout: HeldOut | None) -> Scorer | None:
    """What scores the run's held-out split by its task; None where it has no such split."""
    return None if heldout is None else TASKS[plan.task.name].scorer(plan, place, heldout)
