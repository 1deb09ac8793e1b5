"""Plan: a config and a number of ranks in, what each rank would hold and do out. Starts nothing and needs no torch.

mmtrain plan --config configs/pretrain/base.yaml --world 64 parallel.tp=2 parallel.pp=2
mmtrain plan --config configs/pretrain/base.yaml --world 64 --check parallel.tp=5
"""

import argparse
import sys
from collections.abc import Sequence

from rich.box import SIMPLE

from mmtrain.config.check import find_faults_without_data
from mmtrain.config.depth import STACKS, Part
from mmtrain.config.layout import layout_remarks
from mmtrain.config.load import ConfigError, load_config
from mmtrain.config.schema import RunConfig
from mmtrain.config.shapes import data_parallel_size, num_micro_batches, padded_vocab_size
from mmtrain.io.arguments import Parser, local_path, positive, whole
from mmtrain.io.command import ExitCode, run_command
from mmtrain.io.console import PlainTable, print_error, print_result, print_table
from mmtrain.planner.flops import step_flops
from mmtrain.planner.memory import (
    TYPE_BYTES,
    choose_gather,
    in_units,
    packet_elements,
    peak_bytes,
    picked_tokens,
    stage_bytes,
    stage_parts,
    with_gather,
)
from mmtrain.planner.parameters import stage_parameters, whole_parameters
from mmtrain.planner.search import legal_layouts, nearest_layouts
from mmtrain.planner.speed import stage_costs

GIBIBYTE = 2**30
NUM_PIECES = 32_000  # of a tokenizer, where the run names none that is here
TABLE_WIDTH = 150  # at least: a table cut short says nothing
NUM_SHOWN = 6  # legal layouts in the table


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 where the layout is not legal, with the reasons and the nearest legal ones."""
    return run_command(lambda: plan(_parser().parse_intermixed_args(argv)), "mmtrain")


def plan(words: argparse.Namespace) -> int:
    """Say whether the layout is legal, and what each rank would hold."""
    config = load_config(words.config, words.overrides)
    num_pieces = words.pieces or _pieces_of(config)
    device_bytes = int(words.memory_gib * GIBIBYTE)
    faults = find_faults_without_data(config, words.world, num_pieces)
    if faults:
        _refuse(config, words.world, num_pieces, device_bytes, faults)
        return ExitCode.REFUSED
    print_result(f"legal on {_ranks(words.world)}: {_grid(config, words.world)}")
    for remark in layout_remarks(config, words.world):
        print_result(f"note: {remark}")
    if not words.check:
        _show(config, words.world, num_pieces, device_bytes)
    return 0


def _parser() -> Parser:
    parser = Parser(prog="mmtrain plan", description="What a run would hold and do on each rank.")
    parser.add_argument("--config", type=local_path, help="a YAML file; what it leaves out keeps its default")
    parser.add_argument("--world", type=whole, default=1, help="number of ranks (default: 1)")
    parser.add_argument("--check", action="store_true", help="only say whether the layout is legal")
    parser.add_argument(
        "--pieces", type=whole, help=f"pieces of the tokenizer (default: of data.tokenizer, else {NUM_PIECES})"
    )
    parser.add_argument("--memory-gib", type=positive, default=80.0, help="memory of one device (default: 80)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example parallel.tp=2")
    return parser


def _pieces_of(config: RunConfig) -> int:
    """Of the run's tokenizer where it is here, else a usual number. DataError where it cannot be read."""
    if config.data.tokenizer is None or not config.data.tokenizer.exists():
        return NUM_PIECES
    from mmtrain.data.tokenizer import Tokenizer

    return Tokenizer(config.data.tokenizer).num_pieces


def _refuse(config: RunConfig, world_size: int, num_pieces: int, device_bytes: int, faults: list[str]) -> None:
    print_error("mmtrain", str(ConfigError(faults)))
    if config.model.hidden_size % config.model.num_heads:
        return  # no layout mends the model's own shape
    nearest = nearest_layouts(config, world_size, num_pieces, _precision(config), device_bytes)
    lines = [f"  {candidate.words}  (dp {candidate.dp}, on {_ranks(candidate.world_size)})" for candidate in nearest]
    if lines:
        print_error("mmtrain", "\n".join(["the nearest legal layouts:", *lines]))


def _ranks(world_size: int) -> str:
    return "1 rank" if world_size == 1 else f"{world_size} ranks"


def _grid(config: RunConfig, world_size: int) -> str:
    parallel, count = config.parallel, num_micro_batches(config, world_size)
    shares = ", sharing tokens" if parallel.sequence_parallel else ""
    batches = "1 micro-batch" if count == 1 else f"{count} micro-batches"
    return (
        f"dp {data_parallel_size(config, world_size)} x tp {parallel.tp} x pp {parallel.pp}{shares}, "
        f"ZeRO-{config.zero.stage}, {batches} of {config.train.micro_batch_size} a step"
    )


def _precision(config: RunConfig) -> str:
    return "bf16" if config.precision == "auto" else config.precision


def _show(config: RunConfig, world_size: int, num_pieces: int, device_bytes: int) -> None:
    vocab_size, precision = padded_vocab_size(num_pieces), _precision(config)
    choice = choose_gather(config, world_size, vocab_size, precision, device_bytes)
    assumed = " (precision=auto, taken as bf16)" if config.precision == "auto" else ""
    print_result(f"counted for {num_pieces} pieces in {precision}{assumed} on devices of {in_units(device_bytes)}")
    stages = _stage_table(with_gather(config, choice.mode), world_size, vocab_size, precision)
    print_table(stages, min_width=TABLE_WIDTH)
    for line in _totals(config, world_size, vocab_size, precision):
        print_result(line)
    if config.zero.stage == 3 and data_parallel_size(config, world_size) > 1:
        print_result(choice.reason)
    print_table(_layout_table(config, world_size, num_pieces, device_bytes), min_width=TABLE_WIDTH)


def _stage_table(config: RunConfig, world_size: int, vocab_size: int, precision: str) -> PlainTable:
    """One row a pipeline stage: its layers, its share of the work, and one rank's parameters and bytes."""
    names = ("weights", "gathered", "gradients", "optimizer", "buffers", "activations", "packets")
    heads = ("stage", "layers", "work", "parameters", *names, "peak")
    table = PlainTable(*heads, title="one rank of each pipeline stage", box=SIMPLE)
    parts, costs = stage_parts(config, vocab_size), stage_costs(config, vocab_size)
    for stage, held in enumerate(stage_bytes(config, world_size, vocab_size, precision)):
        num_params = sum(stage_parameters(config, part, vocab_size) for part in parts[stage])
        table.add_row(
            str(stage),
            " + ".join(_layers(part) for part in parts[stage]),
            f"{costs[stage] / sum(costs):.1%}",
            f"{num_params:,}",
            *(in_units(getattr(held, name)) for name in names),
            in_units(held.total),
        )
    return table


def _layers(part: Part) -> str:
    return ", ".join(f"{stack} {len(part.layers(stack))}" for stack in STACKS if part.layers(stack))


def _totals(config: RunConfig, world_size: int, vocab_size: int, precision: str) -> list[str]:
    """What the run as a whole is, does in a step, and sends."""
    num_params, _ = whole_parameters(config, vocab_size)
    length, num_samples = config.model.max_text_length, config.train.global_batch_size
    picked = int(num_samples * picked_tokens(config))
    flops = step_flops(
        config.model,
        config.loss,
        vocab_size,
        num_samples=num_samples,
        text_length=length,
        num_picked_tokens=picked,
        finetune=config.finetune,
    )
    by_stack = ", ".join(f"{stack} {count / 1e12:.3g}" for stack, count in flops.items())
    packet = packet_elements(config) * TYPE_BYTES[precision]
    lines = [
        f"the whole model: {num_params:,} parameters",
        f"a step: {sum(flops.values()) / 1e12:.4g} TFLOP ({by_stack}) for {num_samples} samples with texts of {length}",
        f"a packet between stages: {in_units(packet)} a micro-batch" if packet else "one stage: no packets",
    ]
    if config.zero.stage == 3 and data_parallel_size(config, world_size) > 1:
        peaks = (
            f"{mode} {in_units(peak_bytes(with_gather(config, mode), world_size, vocab_size, precision))}"
            for mode in ("per_step", "per_use")
        )
        lines.append(f"peak of the fullest rank: {', '.join(peaks)}")
    return lines


def _layout_table(config: RunConfig, world_size: int, num_pieces: int, device_bytes: int) -> PlainTable:
    """The legal layouts on as many ranks, the likely fastest first."""
    found = legal_layouts(config, world_size, num_pieces, _precision(config), device_bytes)
    title = f"{len(found)} legal layouts on {_ranks(world_size)}, the likely fastest first"
    table = PlainTable("layout", "dp", "gather", "step, relative", "peak", "fits", title=title, box=SIMPLE)
    for candidate in found[:NUM_SHOWN]:
        table.add_row(
            candidate.words,
            str(candidate.dp),
            candidate.config.zero.gather if config.zero.stage == 3 and candidate.dp > 1 else "-",
            f"{candidate.seconds / found[0].seconds:.2f}",
            in_units(candidate.peak_bytes),
            "yes" if candidate.peak_bytes <= device_bytes else "no",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
