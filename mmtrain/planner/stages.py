"""Cut the depth into pipeline stages of nearly equal cost. Pure arithmetic."""

from collections.abc import Sequence
from functools import cache

from mmtrain.config.depth import layers_of
from mmtrain.config.schema import RunConfig
from mmtrain.planner.flops import layer_flops


def cut_depth(costs: Sequence[float], num_stages: int) -> tuple[int, ...]:
    """How many consecutive layers each stage takes, so that the dearest stage is as cheap as it can be.

    Every stage takes at least one; of equal cuts the one whose later stages are shorter. ValueError with more stages
    than layers.
    """
    if num_stages > len(costs):
        raise ValueError(f"{len(costs)} layers cannot be cut into {num_stages} stages")
    sums = [0.0]
    for cost in costs:
        sums.append(sums[-1] + cost)

    @cache
    def best(start: int, stages: int) -> tuple[float, tuple[int, ...]]:
        if stages == 1:
            return sums[-1] - sums[start], (len(costs) - start,)
        cuts = []
        for count in range(len(costs) - start - stages + 1, 0, -1):
            dearest, rest = best(start + count, stages - 1)
            cuts.append((max(sums[start + count] - sums[start], dearest), (count, *rest)))
        return min(cuts, key=lambda cut: cut[0])

    return best(0, num_stages)[1]


def stage_layers(plan: RunConfig, vocab_size: int) -> tuple[int, ...]:
    """The cut of `parallel.stage_layers`, else the cut by what the layers and what hangs on them cost."""
    if plan.parallel.stage_layers is not None:
        return plan.parallel.stage_layers
    return cut_depth(depth_costs(plan, vocab_size), plan.parallel.pp * plan.parallel.chunks_per_stage)


def depth_costs(plan: RunConfig, vocab_size: int) -> list[float]:
    """Operations of each layer of the flat list for one sample; the vocabulary head counts with the last."""
    by_part = layer_flops(plan.model, plan.loss, vocab_size)
    costs = [by_part[stack] for stack, count in layers_of(plan.model).items() for _ in range(count)]
    costs[-1] += by_part["heads"]
    return costs
