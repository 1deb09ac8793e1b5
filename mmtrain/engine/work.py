"""How much work a step was: tokens and floating-point operations, counted from shapes."""

from mmtrain.config.schema import RunConfig
from mmtrain.model.rows import Layout, count_read
from mmtrain.planner.flops import step_flops
from mmtrain.records import Batch


def tokens_and_flops(plan: RunConfig, layout: Layout, vocab_size: int, batches: list[Batch]) -> tuple[int, float]:
    """Tokens that enter the towers, and operations forward and backward, of one data-parallel rank's micro-batches."""
    num_tokens, flops = 0, 0.0
    for batch in batches:
        num_samples, text_length = batch.text_ids_BT.shape
        counts = count_read(batch, 1)  # of pools nothing is asked here
        height, width = (side // plan.model.patch_size for side in batch.images_BCHW.shape[2:])
        num_patches = height * width or plan.model.num_patches  # later stages have no pixels
        picked = {"masked": counts["masked_tokens"], "causal": counts["next_tokens"]}
        by_stack = step_flops(
            plan.model,
            plan.loss,
            vocab_size,
            num_samples=num_samples,
            text_length=text_length,
            num_picked_tokens=sum(count for kind, count in picked.items() if kind in layout.fusion),
            num_patches=num_patches,
            finetune=plan.finetune,
        )
        flops += sum(by_stack.values())
        num_tokens += num_samples * (num_patches + plan.model.vision_class_token) + int(batch.text_lengths_B.sum())
    return num_tokens, flops
