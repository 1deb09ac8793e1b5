"""The joint objective: L = w_mlm L_MLM + w_itc L_ITC + w_vlp (L_ITM + L_LM), and the choice among answers."""

from collections.abc import Sequence

import torch
import torch.distributed as dist

from mmtrain.config.schema import ItcConfig, LmConfig, LossConfig
from mmtrain.objectives.answer import AnswerChoice
from mmtrain.objectives.caption import Captioning
from mmtrain.objectives.contract import Objective, Totals
from mmtrain.objectives.itc import GlobalBatchContrast, MicroBatchContrast
from mmtrain.objectives.itm import ImageTextMatching
from mmtrain.objectives.mlm import MaskedLanguageModeling
from mmtrain.records import Batch, Features


class Mixture:
    """The objectives of a run with their weights; one of weight 0 is not there and asks for nothing."""

    def __init__(
        self, weights: LossConfig, itc: ItcConfig, data_group: dist.ProcessGroup, lm: LmConfig | None = None
    ) -> None:
        over_all = itc.negatives == "global_batch"
        contrast = GlobalBatchContrast(data_group) if over_all else MicroBatchContrast(data_group)
        offered: list[tuple[float, Objective]] = [
            (weights.mlm, MaskedLanguageModeling()),
            (weights.itc, contrast),
            (weights.of_itm, ImageTextMatching()),
            (weights.of_lm, Captioning(lm.label_smoothing if lm else 0.0)),
            (weights.answer, AnswerChoice()),
        ]
        self.parts = [(weight, objective) for weight, objective in offered if weight > 0]
        self._over_all = contrast if over_all and weights.itc > 0 else None

    @property
    def rows(self) -> frozenset[str]:
        """Every kind of row that an objective of this run reads."""
        return frozenset().union(*(objective.rows for _, objective in self.parts))

    @property
    def loss_names(self) -> tuple[str, ...]:
        """What `losses` returns."""
        return (*(f"loss_{part.name}" for _, part in self.parts), "loss")

    @property
    def needs_first_pass(self) -> bool:
        """Whether an objective must see the features of the whole global batch before the training pass."""
        return self._over_all is not None

    def take_first_pass(self, found: Sequence[tuple[Batch, Features]], totals: Totals) -> None:
        """Hand over what the first pass found of each micro-batch."""
        if self._over_all is None:
            raise RuntimeError("no objective asked for a first pass")
        self._over_all.take_first_pass(found, totals)

    def losses(self, features: Features, batch: Batch, totals: Totals) -> dict[str, torch.Tensor]:
        """This rank's share of each mean, and of their weighted sum, as `loss_mlm` ... and `loss`."""
        named = {f"loss_{part.name}": part.loss(features, batch, totals) for _, part in self.parts}
        weighted = [weight * named[f"loss_{part.name}"] for weight, part in self.parts]
        return named | {"loss": torch.stack(weighted).sum()}
