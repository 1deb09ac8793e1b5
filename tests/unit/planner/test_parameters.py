"""Parameters counted from the knobs are those of the built model, whole and in every stage."""

from typing import Any

import pytest

from mmtrain.config.depth import Part
from mmtrain.config.schema import RunConfig
from mmtrain.planner.parameters import largest_use, moving_parameters, stage_parameters, whole_parameters
from tests.helpers import tiny_plan

MODELS = {
    "one width": {},
    "towers of their own": {"vision_hidden_size": 48, "text_hidden_size": 16},
    "pooled by attention": {"vision_class_token": False, "vision_pooling": "attention", "vision_entry_norm": True},
    "uneven": {"mlp_ratio": 2.5, "vision_layers": 3, "text_layers": 1, "patch_size": 4, "embedding_size": 9},
}

TUNINGS = {
    "everything": {},
    "frozen towers": {"freeze": ["vision", "text"]},
    "LoRA": {"lora": {"rank": 3}},
    "LoRA beside attention, and whole heads": {
        "lora": {"rank": 2, "stacks": ["text", "fusion"], "matrices": "attention", "beside": "heads"}
    },
}


def built(plan: RunConfig, part: Part, vocab_size: int) -> int:
    from mmtrain.model.vlm import VisionLanguageModel

    return sum(param.numel() for param in VisionLanguageModel(plan, vocab_size, part).parameters())


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
def test_every_cut_of_the_depth_has_the_parameters_of_the_model(changes: dict[str, Any], place: Any) -> None:
    plan, vocab_size = tiny_plan(model=changes), 128
    whole = Part.whole(plan.model)
    assert stage_parameters(plan, whole, vocab_size) == built(plan, whole, vocab_size)
    for start in range(whole.stop):
        for stop in range(start + 1, whole.stop + 1):
            part = Part(start, stop, whole.sizes)
            assert stage_parameters(plan, part, vocab_size) == built(plan, part, vocab_size), part


@pytest.mark.parametrize("tuning", TUNINGS.values(), ids=TUNINGS)
def test_what_moves_is_counted_in_every_cut_of_the_depth(tuning: dict[str, Any], place: Any) -> None:
    from mmtrain.engine.frozen import freeze, moving
    from mmtrain.model.vlm import VisionLanguageModel

    plan, vocab_size = tiny_plan(model=MODELS["towers of their own"], finetune=tuning), 128
    sizes = Part.whole(plan.model).sizes
    for part in (Part(0, 6, sizes), Part(0, 2, sizes), Part(1, 5, sizes), Part(3, 6, sizes)):
        model = VisionLanguageModel(plan, vocab_size, part)
        freeze(plan, model)
        assert stage_parameters(plan, part, vocab_size) == built(plan, part, vocab_size)
        assert moving_parameters(plan, part, vocab_size) == sum(param.numel() for _, param in moving(model)), part


def test_the_stages_together_are_the_whole() -> None:
    plan, cut = tiny_plan(), (1, 2, 3)
    parts = [Part.cut(plan.model, cut, stage) for stage in range(len(cut))]
    assert (sum(stage_parameters(plan, part, 128) for part in parts),) * 2 == whole_parameters(plan, 128)


def test_the_largest_use_is_a_layer_or_the_vocabulary() -> None:
    plan = tiny_plan()
    whole = Part.whole(plan.model)
    assert largest_use(plan, whole, 128) < largest_use(plan, whole, 12_800) == 12_800 * 33


def test_the_head_that_chooses_among_answers_is_counted(place: Any) -> None:
    task = {"name": "vqa", "answering": "choose", "answers": ["yes", "no", "two"]}
    plain, plan = tiny_plan(), tiny_plan(task=task)
    whole = Part.whole(plan.model)
    assert stage_parameters(plan, whole, 128) == built(plan, whole, 128) == stage_parameters(plain, whole, 128) + 3 * 33
