"""How long an optimizer step would take, roughly: enough to put layouts in an order, not to foretell seconds.

Operations of the dearest stage over a device's rate, with 1F1B's idle slots, plus bytes over links, nothing hidden
behind anything. The rates are of one H100 node and its network; only their ratios matter here.
"""

from mmtrain.config.depth import STACKS, layers_of
from mmtrain.config.schema import RunConfig
from mmtrain.config.shapes import data_parallel_size, num_image_tokens, num_micro_batches, stack_widths
from mmtrain.planner.flops import num_fusion_rows, num_text_rows
from mmtrain.planner.memory import TYPE_BYTES, packet_elements, stage_parts
from mmtrain.planner.parameters import stage_parameters
from mmtrain.planner.stages import depth_costs, stage_layers

OPERATIONS_PER_SECOND = 4e14  # bf16 products at 40 % of the dense peak
NODE_BYTES_PER_SECOND = 3e11  # between tensor-parallel ranks, which stand beside each other
NETWORK_BYTES_PER_SECOND = 4e10  # between all others
REDUCTIONS_PER_LAYER = 4  # two forward, two backward (Shoeybi et al. 2019, section 3)


def step_seconds(config: RunConfig, world_size: int, vocab_size: int, precision: str) -> float:
    """One optimizer step of a legal layout whose `zero.gather` is decided; `vocab_size` is the padded one."""
    slots = num_micro_batches(config, world_size) + config.parallel.pp - 1
    work = slots * max(stage_costs(config, vocab_size)) * config.train.micro_batch_size / config.parallel.tp
    tensor = slots * _tensor_bytes(config, TYPE_BYTES[precision])
    between_stages = 2 * slots * packet_elements(config) * TYPE_BYTES[precision]
    between_replicas = _data_bytes(config, world_size, vocab_size, TYPE_BYTES[precision])
    return (
        work / OPERATIONS_PER_SECOND
        + tensor / NODE_BYTES_PER_SECOND
        + (between_stages + between_replicas) / NETWORK_BYTES_PER_SECOND
    )


def stage_costs(config: RunConfig, vocab_size: int) -> list[float]:
    """Operations of each pipeline stage for one sample, forward and backward."""
    costs, cut = depth_costs(config, vocab_size), stage_layers(config, vocab_size)
    by_part = [sum(costs[sum(cut[:number]) : sum(cut[: number + 1])]) for number in range(len(cut))]
    return [sum(by_part[stage :: config.parallel.pp]) for stage in range(config.parallel.pp)]


def _tensor_bytes(config: RunConfig, type_bytes: int) -> float:
    """Of one micro-batch through one stage: each layer's output is summed over the ranks, out and back."""
    model, tp = config.model, config.parallel.tp
    tokens = {
        "vision": num_image_tokens(model, config.parallel),
        "text": num_text_rows(config.loss) * model.max_text_length,
        "fusion": num_fusion_rows(config.loss) * model.max_text_length,
    }
    elements = sum(tokens[stack] * stack_widths(model)[stack] * layers_of(model)[stack] for stack in STACKS)
    passed_on = 2 * (tp - 1) / tp  # of each element, by the ring algorithm
    samples = config.train.micro_batch_size
    return REDUCTIONS_PER_LAYER * passed_on * elements * samples * type_bytes / config.parallel.pp


def _data_bytes(config: RunConfig, world_size: int, vocab_size: int, type_bytes: int) -> float:
    """Weights gathered and gradients reduced by one rank in a step."""
    dp, zero = data_parallel_size(config, world_size), config.zero
    largest = max(
        sum(stage_parameters(config, part, vocab_size) for part in parts) for parts in stage_parts(config, vocab_size)
    )
    times = 2  # once gathered, once reduced
    if zero.stage == 3 and zero.gather == "per_use":
        times = 3 * num_micro_batches(config, world_size)  # for the forward pass, for the backward pass, and reduced
    return times * largest * type_bytes * (dp - 1) / dp
