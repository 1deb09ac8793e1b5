"""Which weights move and how fast, by their names; and what of it makes no sense."""

import pytest

from mmtrain.config.check import find_faults_without_data
from mmtrain.config.tuning import FinetuneConfig, LoraConfig, low_rank_of, part_of, steps_from_heads
from tests.helpers import tiny_plan

DEPTHS = {"vision": 3, "text": 2, "fusion": 2}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("token.vocabulary.weight", 0),
        ("contrast.log_temperature", 0),
        ("fusion.final_norm.weight", 0),
        ("fusion.stack.layers.1.mlp.linear_fc2.weight", 1),
        ("fusion.stack.layers.0.mlp.linear_fc2.lora_a", 2),
        ("text.final_norm.bias", 2),
        ("fusion.entry.no_image", 3),
        ("text.stack.layers.1.input_layernorm.weight", 3),
        ("vision.stack.layers.0.self_attention.linear_qkv.weight", 5),
        ("text.embedding.tokens.weight", 5),
        ("vision.embedding.positions", 6),
        ("vision.entry_norm.weight", 6),
    ],
)
def test_the_learning_rate_decays_layer_by_layer_from_the_heads_down(name: str, wanted: int) -> None:
    assert steps_from_heads(name, DEPTHS) == wanted
    assert FinetuneConfig(layer_decay=0.5).share_of(name, DEPTHS) == 0.5**wanted
    assert FinetuneConfig().share_of(name, DEPTHS) == 1


def test_a_frozen_part_has_its_embedding_and_norms_and_the_rest_moves() -> None:
    tuning = FinetuneConfig(freeze=("vision",))
    assert not any(tuning.moves(name) for name in ("vision.embedding.cls", "vision.final_norm.weight"))
    assert all(
        tuning.moves(name) for name in ("text.embedding.positions", "contrast.image.weight", "match.logits.bias")
    )
    assert tuning.moving == {"text", "fusion", "heads"}


def test_with_lora_only_the_small_matrices_move_and_what_is_named_beside_them() -> None:
    tuning = FinetuneConfig(lora=LoraConfig(rank=4, stacks=("text",), beside=("heads",)))
    assert tuning.moves("text.stack.layers.0.mlp.linear_fc1.lora_b") and tuning.moves("token.vocabulary.bias")
    assert not tuning.moves("text.stack.layers.0.mlp.linear_fc1.weight")
    assert tuning.frozen == {"vision", "text", "fusion"} and tuning.moving == {"text", "heads"}


def test_lora_stands_beside_the_matrices_of_the_layers_that_were_named() -> None:
    lora = LoraConfig(rank=4, stacks=("text", "fusion"), matrices=("attention",))
    assert lora.stands_beside("fusion.stack.layers.0.cross_attention.linear_kv.weight")
    for other in (
        "fusion.stack.layers.0.cross_attention.linear_kv.bias",
        "fusion.stack.layers.0.mlp.linear_fc1.weight",
        "fusion.stack.layers.0.input_layernorm.weight",
        "vision.stack.layers.0.self_attention.linear_qkv.weight",
        "text.embedding.tokens.weight",
    ):
        assert not lora.stands_beside(other), other
    assert not LoraConfig().stands_beside("text.stack.layers.0.self_attention.linear_qkv.weight")
    assert low_rank_of("text.a.linear_q.weight") == ("text.a.linear_q.lora_a", "text.a.linear_q.lora_b")
    assert part_of("match.logits.weight") == "heads"


@pytest.mark.parametrize(
    ("tuning", "loss", "wanted"),
    [
        ({"freeze": ["vision", "text", "fusion", "heads"]}, {}, "names every part, so there is nothing to learn"),
        ({"lora": {"beside": "heads"}}, {}, "finetune.lora.rank is 0"),
        ({"lora": {"rank": 4, "stacks": "fusion"}}, {"mlm": 0.0, "vlp": 0.0}, "loss.itc alone does not reach"),
    ],
)
def test_what_could_learn_nothing_is_refused(tuning: dict, loss: dict, wanted: str) -> None:
    (fault,) = find_faults_without_data(tiny_plan(finetune=tuning, loss=loss), world_size=1)
    assert wanted in fault
