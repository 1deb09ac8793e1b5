"""Operations counted by hand, on shapes small enough for it."""

import pytest

from mmtrain.config.schema import LossConfig, ModelConfig
from mmtrain.config.tuning import FinetuneConfig
from mmtrain.planner.flops import step_flops

SMALL = ModelConfig(
    hidden_size=4, num_heads=1, mlp_ratio=2.0, vision_layers=1, text_layers=1, fusion_layers=1,
    image_size=4, patch_size=2, embedding_size=3,
)  # fmt: skip
ALL = LossConfig()


def flops(model: ModelConfig = SMALL, loss: LossConfig = ALL, **sizes: int) -> dict[str, float]:
    given = {"num_samples": 1, "text_length": 3, "num_picked_tokens": 0, **sizes}
    return step_flops(model, loss, 10, **given)


def test_frozen_weights_need_no_gradients_and_nothing_runs_backward_below_what_moves() -> None:
    given = {"num_samples": 1, "text_length": 3, "num_picked_tokens": 2}
    whole = step_flops(SMALL, ALL, 10, **given)

    def shares(**tuning: object) -> dict[str, float]:
        found = step_flops(SMALL, ALL, 10, **given, finetune=FinetuneConfig.model_validate(tuning))
        return {stack: round(3 * found[stack] / whole[stack]) for stack in whole}

    assert shares(freeze=["vision"]) == {"vision": 1, "text": 3, "fusion": 3, "heads": 3}
    assert shares(lora={"rank": 2}) == {"vision": 2, "text": 2, "fusion": 2, "heads": 2}
    assert shares(lora={"rank": 2, "stacks": "text", "beside": "heads"}) == {
        "vision": 1, "text": 2, "fusion": 2, "heads": 3,
    }  # fmt: skip


def layer_by_hand(length: int, width: int, inner: int) -> int:
    """qkv, scores, values, projection, and the two products of the MLP; in additions and multiplications."""
    qkv, projection = length * width * 3 * width, length * width * width
    scores, values = length * width * length, length * length * width
    return 2 * (qkv + scores + values + projection + 2 * length * width * inner)


def test_vision_is_its_patches_and_layers_over_five_tokens() -> None:
    patches = 2 * 4 * (3 * 2 * 2) * 4
    assert flops()["vision"] == 3 * (patches + layer_by_hand(5, 4, 8))


def test_text_runs_clean_masked_and_causal_rows() -> None:
    assert flops()["text"] == 3 * 3 * layer_by_hand(3, 4, 8)


def test_fusion_runs_five_rows_that_share_the_keys_and_values_of_the_image() -> None:
    shared = 2 * 5 * 4 * (2 * 4)
    cross = 2 * (3 * 4 * 4 + 3 * 4 * 5 + 3 * 5 * 4 + 3 * 4 * 4)
    assert flops()["fusion"] == 3 * (shared + 5 * (layer_by_hand(3, 4, 8) + cross))


def test_heads_are_two_projections_three_matches_and_the_picked_tokens() -> None:
    pooled = 2 * (4 * 3 + 4 * 3) + 3 * 2 * 4 * 2
    assert flops(num_picked_tokens=7)["heads"] == 3 * (pooled + 7 * 2 * 4 * 10)


def test_towers_of_another_width_are_projected_once_per_image_and_once_per_row() -> None:
    wide = SMALL.model_copy(update={"vision_hidden_size": 8, "text_hidden_size": 12})
    extra = 2 * 5 * 8 * 4 + 5 * (2 * 3 * 12 * 4)
    assert flops(wide)["fusion"] - flops()["fusion"] == 3 * extra
    assert flops(wide)["text"] == 3 * 3 * layer_by_hand(3, 12, 24)


@pytest.mark.parametrize(
    ("weights", "text_rows", "fusion_rows"),
    [
        ({"vlp": 0, "mlm": 0}, 1, 0),
        ({"vlp": 0}, 2, 1),
        ({"mlm": 0}, 2, 4),
        ({"itc": 0, "vlp": 0}, 1, 1),
        ({"itc": 0}, 3, 5),
    ],
)
def test_a_weight_of_0_takes_its_rows_away(weights: dict[str, float], text_rows: int, fusion_rows: int) -> None:
    some, every = flops(loss=LossConfig(**weights)), flops()
    assert some["text"] * 3 == every["text"] * text_rows
    per_row = every["fusion"] - flops(loss=LossConfig(itc=0, mlm=0))["fusion"]
    shared = every["fusion"] - 5 * per_row
    assert some["fusion"] == (fusion_rows * per_row + shared if fusion_rows else 0)
    assert some["vision"] == every["vision"]


def test_twice_the_samples_are_twice_the_operations() -> None:
    one, two = flops(num_picked_tokens=5), flops(num_samples=2, num_picked_tokens=10)
    assert two == {stack: 2 * count for stack, count in one.items()}


def test_a_vit_b_16_at_224_px_has_the_published_17_6_billion_multiplications() -> None:
    vit = ModelConfig(hidden_size=768, num_heads=12, vision_layers=12, image_size=224, patch_size=16)
    assert flops(vit)["vision"] / 3 / 2 == pytest.approx(17.6e9, rel=0.01)
