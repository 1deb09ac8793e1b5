"""Which rows a run asks for, what each position may look at, and what the losses are means over."""

from dataclasses import replace

import pytest
import torch

from mmtrain.model.rows import Layout, count_read, next_labels, pick_masked, pick_next, plan_rows
from mmtrain.records import IGNORED_LABEL, Batch
from tests.helpers import made_batch

LENGTHS = (5, 3, 0)
IDS = ((2, 7, 8, 9, 3, 0), (2, 6, 3, 0, 0, 0), (0, 0, 0, 0, 0, 0))
MASKED_AT = ((0, 2), (1, 1))  # sample, position


def written_batch() -> Batch:
    """Three samples: five tokens, three tokens, and an image without a text."""
    ids_BT = torch.tensor(IDS)
    labels_BT = torch.full_like(ids_BT, IGNORED_LABEL)
    for sample, position in MASKED_AT:
        labels_BT[sample, position] = ids_BT[sample, position]
    return replace(
        made_batch(range(3)),
        text_ids_BT=ids_BT,
        masked_ids_BT=ids_BT.masked_fill(labels_BT != IGNORED_LABEL, 4),
        masked_labels_BT=labels_BT,
        text_lengths_B=torch.tensor(LENGTHS),
        has_image_B=torch.ones(3, dtype=torch.bool),
        has_text_B=torch.tensor([length > 0 for length in LENGTHS]),
    )


def test_a_layout_holds_each_kind_once_and_in_one_order() -> None:
    layout = Layout.of(["negative_text", "causal", "clean", "negative_image", "clean", "positive"])
    assert layout.text == ("clean", "causal")
    assert layout.fusion == ("positive", "causal", "negative_image", "negative_text")
    assert layout.has_negatives


def test_no_negative_is_drawn_where_nobody_asks_for_one() -> None:
    assert not Layout.of(["masked", "causal"]).has_negatives


def test_a_kind_that_nobody_knows_is_refused() -> None:
    with pytest.raises(RuntimeError, match="sideways"):
        Layout.of(["clean", "sideways"])


def test_both_ways_rows_look_at_every_token_and_causal_rows_only_at_the_past() -> None:
    rows = plan_rows(written_batch(), Layout.of(["clean", "masked", "causal"]))
    clean, masked, causal = rows.text_mask_Y1TT[:, 0].chunk(3)
    for sample, length in enumerate(LENGTHS):
        for looks in range(6):
            # A sample without a text keeps its first position, so that no softmax is empty.
            at = [seen < max(length, 1) for seen in range(6)]
            assert clean[sample, looks].tolist() == masked[sample, looks].tolist() == at
            assert causal[sample, looks].tolist() == [known and seen <= looks for seen, known in enumerate(at)]


def test_each_kind_of_text_row_reads_its_own_ids() -> None:
    batch = written_batch()
    clean, masked, causal = plan_rows(batch, Layout.of(["clean", "masked", "causal"])).text_ids_YT.chunk(3)
    assert clean.tolist() == causal.tolist() == batch.text_ids_BT.tolist()
    assert masked.tolist() == batch.masked_ids_BT.tolist()


def test_masked_positions_are_picked_with_their_true_tokens() -> None:
    picks = pick_masked(written_batch())
    assert list(zip(picks.row_N.tolist(), picks.position_N.tolist(), strict=True)) == list(MASKED_AT)
    assert picks.labels_N.tolist() == [8, 6]


def test_every_position_but_the_last_is_picked_with_the_token_after_it() -> None:
    batch = written_batch()
    assert next_labels(batch)[0].tolist() == [7, 8, 9, 3, IGNORED_LABEL, IGNORED_LABEL]
    picks = pick_next(batch)
    assert picks.row_N.tolist() == [0, 0, 0, 0, 1, 1]
    assert picks.position_N.tolist() == [0, 1, 2, 3, 0, 1]
    assert picks.labels_N.tolist() == [7, 8, 9, 3, 6, 3]


def test_an_empty_pick_leaves_one_stand_in_that_no_loss_reads() -> None:
    batch = written_batch()
    nothing = replace(batch, masked_labels_BT=torch.full_like(batch.masked_labels_BT, IGNORED_LABEL))
    assert pick_masked(nothing).labels_N.tolist() == [IGNORED_LABEL]


def test_only_the_picks_that_are_asked_for_are_made() -> None:
    asked = {"masked": ["masked"], "causal": ["causal"]}
    for kind, kinds in asked.items():
        assert list(plan_rows(written_batch(), Layout.of(kinds)).picks) == [kind]
    assert plan_rows(written_batch(), Layout.of(["clean"])).picks == {}


def test_a_pair_needs_an_image_and_a_text() -> None:
    batch = replace(written_batch(), has_image_B=torch.tensor([True, False, True]))
    rows = plan_rows(batch, Layout.of(["clean"]))
    assert rows.has_pair_B.tolist() == [True, False, False]
    assert not rows.all_images
    assert plan_rows(written_batch(), Layout.of(["clean"])).all_images


def test_counts_are_those_counted_by_hand() -> None:
    # Two pools of four: in the first, samples 0 and 1 share a caption and 3 has no image; in the second all share one
    # image but the last, so only it and the others may be negatives of each other, and one of those has no text.
    batch = replace(
        made_batch(range(8)),
        has_image_B=torch.tensor([True, True, True, False, True, True, True, True]),
        has_text_B=torch.tensor([True, True, True, True, True, False, True, True]),
        image_ids_B=torch.tensor([1, 2, 3, 4, 5, 5, 5, 6]),
        caption_ids_B=torch.tensor([1, 1, 2, 3, 4, 5, 6, 7]),
        text_lengths_B=torch.tensor([3, 4, 5, 3, 12, 0, 2, 7]),
        masked_labels_BT=torch.full((8, 12), IGNORED_LABEL).index_fill(1, torch.tensor([1]), 9),
    )
    pairs = 6
    with_negative = 3 + 3  # 0 and 1 have 2; 2 has both; 4 and 6 have 7; 7 has both
    counted = {"pairs": pairs, "matches": pairs + 2 * with_negative, "masked_tokens": 8}
    assert count_read(batch, 4) == {**counted, "next_tokens": 2 + 3 + 4 + 2 + 11 + 0 + 1 + 6}


def test_a_batch_of_empty_places_counts_nothing() -> None:
    batch = replace(
        made_batch(range(4)),
        has_image_B=torch.zeros(4, dtype=torch.bool),
        has_text_B=torch.zeros(4, dtype=torch.bool),
        text_lengths_B=torch.zeros(4, dtype=torch.int64),
        masked_labels_BT=torch.full((4, 12), IGNORED_LABEL),
    )
    assert set(count_read(batch, 4).values()) == {0}


def test_of_causal_rows_a_question_is_read_both_ways_and_its_answer_looks_back() -> None:
    batch = replace(written_batch(), prefix_lengths_B=torch.tensor([3, 1, 1]))
    mask_31TT = plan_rows(batch, Layout.of({"causal"})).text_mask_Y1TT
    wanted = [[1, 1, 1, 0, 0, 0]] * 3 + [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 0]]
    assert mask_31TT[0, 0].int().tolist() == wanted
    assert mask_31TT[1, 0].int().tolist()[0] == [1, 0, 0, 0, 0, 0]
