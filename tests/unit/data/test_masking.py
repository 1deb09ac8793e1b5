import numpy as np
import pytest

from mmtrain.data.draws import Purpose, generator
from mmtrain.data.masking import mask_tokens
from mmtrain.data.tokenizer import SPECIAL_PIECES, Tokenizer
from mmtrain.records import IGNORED_LABEL

NUM_PIECES = 500
ORDINARY = range(len(SPECIAL_PIECES), NUM_PIECES)
IDS_T = np.array([Tokenizer.cls_id, *range(10, 33), Tokenizer.unk_id, Tokenizer.sep_id])  # 23 pieces that can be picked


def many(mask_share: float, ids_T: np.ndarray = IDS_T) -> tuple[np.ndarray, np.ndarray]:
    rows = [
        mask_tokens(ids_T, mask_share, ORDINARY, Tokenizer.mask_id, generator(0, Purpose.MASK, 0, row))
        for row in range(4000)
    ]
    return np.stack([shown for shown, _ in rows]), np.stack([labels for _, labels in rows])


def test_the_picked_share_is_the_asked_one_and_splits_80_10_10():
    shown, labels = many(0.15)
    picked = labels != IGNORED_LABEL
    num_picked = picked.sum()
    assert num_picked / (23 * len(shown)) == pytest.approx(0.15, abs=0.004)
    assert np.mean(shown[picked] == Tokenizer.mask_id) == pytest.approx(0.8, abs=0.015)
    assert np.mean(shown[picked] == labels[picked]) == pytest.approx(0.1 + 0.1 / 495, abs=0.012)
    assert shown[picked][shown[picked] != Tokenizer.mask_id].min() >= len(SPECIAL_PIECES)


def test_labels_are_the_true_tokens_and_unpicked_tokens_stay():
    shown, labels = many(0.4)
    picked = labels != IGNORED_LABEL
    true = np.broadcast_to(IDS_T, shown.shape)
    assert np.array_equal(labels[picked], true[picked])
    assert np.array_equal(shown[~picked], true[~picked])


def test_special_tokens_are_never_picked_and_every_other_place_is():
    _, labels = many(0.15)
    places = np.any(labels != IGNORED_LABEL, axis=0)
    assert places.tolist() == [False] + [True] * 23 + [False] * 2


def test_a_short_caption_has_one_masked_token_at_least():
    _, labels = many(0.15, np.array([Tokenizer.cls_id, 9, 8, Tokenizer.sep_id]))
    assert np.all((labels != IGNORED_LABEL).sum(axis=1) == 1)


def test_nothing_is_masked_at_share_0_or_where_nothing_can_be():
    for share, ids_T in ((0.0, IDS_T), (0.5, np.array([Tokenizer.cls_id, Tokenizer.unk_id, Tokenizer.sep_id]))):
        shown_T, labels_T = mask_tokens(ids_T, share, ORDINARY, Tokenizer.mask_id, generator(0, Purpose.MASK))
        assert np.array_equal(shown_T, ids_T) and np.all(labels_T == IGNORED_LABEL)
