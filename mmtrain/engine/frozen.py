"""A stage some of whose weights do not move: which do, what is kept of the others, and how it takes part in a step."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from mmtrain.config.depth import layers_of
from mmtrain.config.schema import RunConfig
from mmtrain.engine.optim import MASTER, Part
from mmtrain.model.chunks import StageModel
from mmtrain.parallel.collectives import gather_rows
from mmtrain.parallel.groups import Groups

Named = list[tuple[str, torch.nn.Parameter]]
ANCHOR = "anchor "  # no weight of a model is called so


def freeze(plan: RunConfig, model: StageModel) -> None:
    """Let only those weights await gradients that `plan.finetune` lets move."""
    for name, param in model.named_parameters():
        param.requires_grad_(plan.finetune.moves(name))


def moving(model: StageModel) -> Named:
    """The weights that an optimizer moves, by name."""
    return [(name, param) for name, param in model.named_parameters() if param.requires_grad]


def share_in(plan: RunConfig) -> Callable[[str], float]:
    """The share of the learning rate that each weight moves by, by its name."""
    depths, finetune = layers_of(plan.model), plan.finetune

    def share_of(name: str) -> float:
        if name.startswith(ANCHOR):
            return finetune.layer_decay ** int(name.removeprefix(ANCHOR))
        return finetune.share_of(name, depths)

    return share_of


class Anchored(torch.nn.Module):
    """A stage of several that takes part in every step alike, also where none of its weights moves.

    Without a weight that awaits a gradient neither autograd nor ZeRO would have a backward pass to run, and ZeRO asks
    all stages for a norm once a group of weights: they must have equally many. So every stage has a number of its own
    in each group that any may have, and where nothing else does, its output hangs on one of them, by a factor of 0.
    They never move, belong to no checkpoint, and are all that this costs.
    """

    def __init__(self, stage: StageModel, *, num_shares: int) -> None:
        super().__init__()
        self.stage = stage
        self.is_still = not moving(stage)
        shapes = ((1, 1), (1,))  # with weight decay, without
        self.anchors = torch.nn.ParameterList(
            torch.nn.Parameter(torch.zeros(shape)) for _ in range(num_shares) for shape in shapes
        )
        for anchor in self.anchors:
            anchor.tensor_model_parallel = True  # counted on every rank, so that none has nothing to count

    def named_anchors(self) -> Named:
        """Each is called by how many steps below the heads its share of the learning rate is that of."""
        return [(f"{ANCHOR}{number // 2}", anchor) for number, anchor in enumerate(self.anchors)]

    def forward(self, *inputs: Any) -> Any:
        output = self.stage(*inputs)
        if not torch.is_grad_enabled():
            return output
        nothing = 0 * self.anchors[0].sum()
        if self.is_still and not isinstance(output, torch.Tensor):
            return _hung_on(nothing, output)
        is_loose = isinstance(output, torch.Tensor) and not output.requires_grad
        return output + nothing.to(output.dtype) if is_loose else output


def _hung_on(nothing: torch.Tensor, features: Any) -> Any:
    """Features of the last stage with `nothing` added to every number that a loss may read."""
    if isinstance(features, Mapping):
        return {name: _hung_on(nothing, value) for name, value in features.items()}
    return features + nothing.to(features.dtype) if features.is_floating_point() else features


def anchored(plan: RunConfig, model: StageModel) -> tuple[torch.nn.Module, Named]:
    """What is to be run of a stage, and all that its optimizer moves."""
    named, finetune = moving(model), plan.finetune
    if plan.parallel.pp == 1 or not finetune.frozen and finetune.layer_decay == 1:
        return model, named
    depths = layers_of(plan.model)
    deepest = depths["fusion"] + max(depths["vision"], depths["text"]) + 1
    stage = Anchored(model, num_shares=1 if finetune.layer_decay == 1 else deepest + 1)
    return stage, [*named, *stage.named_anchors()]


class FrozenWeights:
    """This rank's share of a stage's weights that do not move, in float32 in the host's memory, exactly as they came.

    The stage may compute with them in another type, and ZeRO may hold them in parts; what is saved is this. Each weight
    is cut into equal parts, the last ones shorter, as ZeRO-3 cuts it. To be made before anything of that happens.
    """

    def __init__(self, model: StageModel, groups: Groups) -> None:
        self.groups = groups
        self.params = {name: param for name, param in model.named_parameters() if not param.requires_grad}
        self.shares = {name: self._own_part(param.detach()) for name, param in self.params.items()}
        self.shapes = {name: param.shape for name, param in self.params.items()}

    def _own_part(self, whole: torch.Tensor) -> torch.Tensor:
        """A copy; where one rank holds all there is to hold and nothing is to be converted, the weight itself."""
        start, size = self._range(whole.shape)
        part = whole.view(-1)[start : start + size].to("cpu", torch.float32)
        return part.clone() if self.groups.grid.dp > 1 else part

    def _range(self, shape: torch.Size) -> tuple[int, int]:
        """Where this rank's share of a weight begins, row by row, and how many elements a whole share has."""
        size = -(-shape.numel() // self.groups.grid.dp)
        return size * self.groups.coord.dp, size

    def parts(self) -> Iterator[Part]:
        """The shares that are not empty, to be kept or written to."""
        for name, share in self.shares.items():
            if share.numel():
                yield Part(name, MASTER, self._range(self.shapes[name])[0], share)

    def put_back(self) -> None:
        """Let every weight, whole on each rank, be what the shares say. All dp ranks call."""
        for name, param in self.params.items():
            padded = torch.zeros(self._range(param.shape)[1], device=param.device)
            padded[: self.shares[name].numel()] = self.shares[name]
            whole = gather_rows(padded, self.groups.data)[: param.numel()]
            param.data.copy_(whole.view(param.shape))

    def put_back_parts(self) -> None:
        """The same where ZeRO-3 holds each weight in the very parts."""
        for name, param in self.params.items():
            share = self.shares[name]
            param.ds_tensor.data.view(-1)[: share.numel()].copy_(share)
