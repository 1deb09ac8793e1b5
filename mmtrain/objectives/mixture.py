"""The joint objective: L = w_mlm L_MLM + w_itc L_ITC + w_vlp (L_ITM + L_LM)."""

import torch
import torch.distributed as dist

from mmtrain.config.schema import LossConfig
from mmtrain.objectives.caption import Captioning
from mmtrain.objectives.contract import Objective, Totals
from mmtrain.objectives.itc import ImageTextContrast
from mmtrain.objectives.itm import ImageTextMatching
from mmtrain.objectives.mlm import MaskedLanguageModeling
from mmtrain.records import Batch, Features


class Mixture:
    """The objectives of a run with their weights; one of weight 0 is not there and asks for nothing."""

    def __init__(self, weights: LossConfig, data_group: dist.ProcessGroup) -> None:
        offered: list[tuple[float, Objective]] = [
            (weights.mlm, MaskedLanguageModeling()),
            (weights.itc, ImageTextContrast(data_group)),
            (weights.vlp, ImageTextMatching()),
            (weights.vlp, Captioning()),
        ]
        self.parts = [(weight, objective) for weight, objective in offered if weight > 0]

    @property
    def rows(self) -> frozenset[str]:
        """Every kind of row that an objective of this run reads."""
        return frozenset().union(*(objective.rows for _, objective in self.parts))

    def losses(self, features: Features, batch: Batch, totals: Totals) -> dict[str, torch.Tensor]:
        """This rank's share of each mean, and of their weighted sum, as `loss_mlm` ... and `loss`."""
        named = {f"loss_{part.name}": part.loss(features, batch, totals) for _, part in self.parts}
        weighted = [weight * named[f"loss_{part.name}"] for weight, part in self.parts]
        return named | {"loss": torch.stack(weighted).sum()}
