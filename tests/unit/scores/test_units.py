"""Each score is shown in its unit, by every table in the same way."""

import math

import pytest

from mmtrain.scores.units import Unit, format_score, unit_of

SHOWN = {
    ("image_to_text_recall_at_1", 0.125): "12.5%",
    ("chance_text_to_image_recall_at_10", 1): "100.0%",
    ("itm_accuracy_color", 0.5): "50.0%",
    ("masked_token_accuracy", 0.0): "0.0%",
    ("constant_by_kind_vqa_accuracy", 0.25): "25.0%",
    ("vqa_accuracy_yes_no", 0.333): "33.3%",
    ("caption_all_right", 0.02): "2.0%",
    ("constant_bleu_4", 0.25): "25.0%",
    ("rouge_l", 0.5): "50.0%",
    ("cider", 2.95): "2.95",
    ("cider_d", 0.7): "0.7",
    ("constant_cider_d", 0.123456): "0.1235",
    ("lm_perplexity", 9.5): "9.5",
    ("lm_perplexity", 1e144): "1e+144",
    ("num_pairs", 1_234_567): "1234567",
    ("num_words_per_caption", 9.25): "9.25",
}


@pytest.mark.parametrize("said", SHOWN, ids=str)
def test_a_score_is_shown_in_its_unit(said: tuple[str, float]) -> None:
    assert format_score(*said) == SHOWN[said]


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, "0.5", "", [], {}, True, 10**400], ids=str)
@pytest.mark.parametrize("score", ["itm_accuracy", "num_pairs", "cider_d"])
def test_what_is_no_number_is_said_to_be_none(score: str, value: object) -> None:
    assert format_score(score, value) == "no number"


def test_units_follow_names() -> None:
    names = ("num_images", "cider_d", "itc_accuracy")
    assert [unit_of(name) for name in names] == [Unit.COUNT, Unit.PLAIN, Unit.PERCENT]
