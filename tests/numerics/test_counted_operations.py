"""The operations that the planner counts from shapes, against those that torch sees the model do."""

from tests.helpers import VOCAB_SIZE, made_batch, run_ranks

SMALL = (
    "model.image_size=16", "model.patch_size=4", "model.max_text_length=12", "model.num_heads=2",
    "model.hidden_size=32", "model.embedding_size=24", "itm.pool_size=6", "train.micro_batch_size=6",
)  # fmt: skip
HEADS = ("contrast", "match", "token")


CASES = (
    (),
    ("model.vision_hidden_size=48", "model.text_hidden_size=16", "model.mlp_ratio=3"),
    ("model.vision_class_token=false", "model.vision_pooling=attention", "model.text_pooling=last"),
    ("loss.vlp=0",),
    ("loss.mlm=0", "loss.itc=0"),
    ("loss.itc=0", "loss.vlp=0"),
    ("loss.mlm=0", "loss.vlp=0"),
)
Counts = dict[str, float]


def seen_and_counted(cases: tuple[tuple[str, ...], ...]) -> list[tuple[Counts, Counts]]:
    """Forward operations of one micro-batch by stack: what torch saw, and what the planner says; for each case."""
    from mmtrain.config.load import load_config
    from mmtrain.engine.build import join
    from mmtrain.parallel.launch import read_launch

    join(load_config(None, SMALL), read_launch())
    return [_seen_and_counted(case) for case in cases]


def _seen_and_counted(overrides: tuple[str, ...]) -> tuple[Counts, Counts]:
    import torch
    import torch.distributed as dist
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from mmtrain.config.load import load_config
    from mmtrain.model.rows import Layout, plan_rows
    from mmtrain.model.vlm import VisionLanguageModel
    from mmtrain.objectives.mixture import Mixture
    from mmtrain.planner.flops import FORWARD_AND_BACKWARD, step_flops

    plan = load_config(None, [*SMALL, *overrides])
    model = VisionLanguageModel(plan, VOCAB_SIZE)
    rows = plan_rows(made_batch(range(6)), Layout.of(Mixture(plan.loss, plan.itc, dist.group.WORLD).rows))
    # The fused attention kernels of a CPU are unknown to the counter; the plain one is made of products that it knows.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, depth=2) as counter:
        model(rows)
    named = {name: float(sum(counts.values())) for name, counts in counter.get_flop_counts().items()}
    part = {name.removeprefix("VisionLanguageModel."): count for name, count in named.items()}
    seen = {stack: part.get(stack, 0.0) for stack in ("vision", "text", "fusion")}
    seen["fusion"] += part.get("fusion.entry", 0.0)  # called before the stack, by the model itself
    seen["heads"] = sum(part.get(head, 0.0) for head in HEADS)
    num_picked = sum(picks.row_N.numel() for picks in rows.picks.values())
    counted = step_flops(plan.model, plan.loss, VOCAB_SIZE, num_samples=6, text_length=12, num_picked_tokens=num_picked)
    return seen, {stack: count / FORWARD_AND_BACKWARD for stack, count in counted.items()}


def test_the_planner_counts_the_operations_that_the_model_does() -> None:
    (pairs,) = run_ranks(1, seen_and_counted, CASES)
    for case, (seen, counted) in zip(CASES, pairs, strict=True):
        assert seen == counted, f"with {case}"
