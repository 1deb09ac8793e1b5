"""Pretraining as a task: the held-out scores of whatever the run learns."""

from mmtrain.config.schema import RunConfig
from mmtrain.data.heldout import HeldOut
from mmtrain.engine.build import Place, build_evaluation
from mmtrain.engine.contract import Scorer


class Pretraining:
    """Recall, matching, masked tokens and perplexity, as far as they are learned."""

    name = "pretrain"

    def scorer(self, plan: RunConfig, place: Place, heldout: HeldOut) -> Scorer:
        return build_evaluation(plan, place, heldout)
