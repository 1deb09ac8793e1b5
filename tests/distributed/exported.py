"""A parallel model's outputs on samples made by hand, and its export, for whatever layout; run inside ranks."""

from pathlib import Path
from typing import Any

TOWERS = {
    "one width": {},
    "own widths, pooled by attention": {
        "vision_hidden_size": 48,
        "text_hidden_size": 16,
        "vision_class_token": False,
        "vision_pooling": "attention",
        "vision_activation": "gelu_tanh",
        "text_norm_epsilon": 1e-6,
    },
    "causal tower, last token": {
        "text_attention": "causal",
        "text_pooling": "last",
        "vision_entry_norm": True,
        "text_activation": "quick_gelu",
    },
}  # fmt: skip

TUNED = {  # sections of a plan of one width
    "with LoRA": {"finetune": {"lora": {"rank": 3, "alpha": 12.0}}},
    "larger images": {"model": {"image_size": 32}},
}
NUM_TUNED = 2  # steps after which LoRA's matrices have an effect


class Nowhere:
    """A stream that stands nowhere."""

    def state(self) -> dict[str, Any]:
        return {}


def plan_of(towers: str, tp: int, pp: int, **sections: Any) -> Any:
    """A plan whose weights are large enough that what a model sees shows in what it says."""
    from tests.helpers import tiny_plan

    parallel = {"tp": tp, "pp": pp}
    train = {"micro_batch_size": 8, "global_batch_size": 16}
    sections = {**TUNED.get(towers, {}), **sections}
    model = {"init_std": 0.2, **TOWERS.get(towers, {}), **sections.pop("model", {})}
    itm = {"pool_size": 8}
    return tiny_plan(parallel=parallel, model=model, train=train, itm=itm, seed=3, **sections)


def run_and_save(towers: str, tp: int, pp: int, folder: str, begins_with: str = "") -> list[dict[str, Any]] | None:
    """Features and logits of the first global batch, then a checkpoint; None but on the rank that sees them."""
    from megatron.core import parallel_state

    from mmtrain.checkpoint.changes import Changes
    from mmtrain.checkpoint.keeper import Keeper
    from mmtrain.checkpoint.manifest import Manifest
    from mmtrain.engine.build import build_engine, join
    from mmtrain.model.rows import FUSION_KINDS, TEXT_KINDS, Layout
    from mmtrain.parallel.launch import read_launch
    from tests.helpers import VOCAB_SIZE, global_batch_of

    plan = plan_of(towers, tp, pp, model={**TUNED.get(towers, {}).get("model", {}), "init_from": begins_with or None})
    place = join(plan, read_launch())
    engine = build_engine(plan, place, num_pieces=VOCAB_SIZE)
    layout = Layout.of([*TEXT_KINDS, *FUSION_KINDS])
    batches = global_batch_of(0, plan, place.groups.grid.dp, place.groups.coord.dp)
    for step in range(NUM_TUNED if plan.finetune.lora.rank else 0):
        engine.step(global_batch_of(step, plan, place.groups.grid.dp, place.groups.coord.dp))
    found = [_whole(features, place) for _, features in engine.passes.infer(batches, layout) if features is not None]
    tokenizer_sha256 = (Path(folder) / "tokenizer.sha256").read_text()
    manifest = Manifest(0, plan.model_dump(mode="json"), {}, tokenizer_sha256, VOCAB_SIZE)
    keeper = Keeper(Path(folder), manifest, plan.checkpoint, Changes({}))
    keeper.save(1, engine, Nowhere())
    keeper.finish()
    parallel_state.destroy_model_parallel()
    return found or None


def _whole(features: Any, place: Any) -> dict[str, Any]:
    """Features with the parts of the vocabulary of all tensor-parallel ranks side by side."""
    from mmtrain.parallel.collectives import gather_rows

    whole = {name: features[name].numpy() for name in ("image_BE", "text_BE", "temperature")}
    whole |= {f"match {kind}": logits.numpy() for kind, logits in features["match_logits"].items()}
    for kind, part_NV in features["token_logits"].items():
        parts = gather_rows(part_NV[None], place.groups.tensor)
        whole[f"token {kind}"] = parts.permute(1, 0, 2).flatten(1).numpy()
    return whole


def loaded_from_export(folder: str, tp: int, pp: int) -> list[tuple[str, tuple[slice, ...], Any]]:
    """The first weights of a run that begins with an export: names, rectangles, values."""
    from mmtrain.engine.beginnings import begin_from_source
    from mmtrain.engine.build import build_model, join
    from mmtrain.parallel.launch import read_launch
    from tests.helpers import VOCAB_SIZE

    plan = plan_of("one width", tp, pp)
    model = plan.model.model_copy(update={"init_from": Path(folder) / "export"})
    plan = plan.model_copy(update={"model": model})
    place = join(plan, read_launch())
    stage, slices = build_model(plan, place, VOCAB_SIZE)
    begin_from_source(plan, stage, slices, says_so=False)
    return [(name, slices[name].index, param.detach().numpy()) for name, param in stage.named_parameters()]
