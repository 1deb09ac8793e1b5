"""Which tokens of a caption are hidden from masked language modeling. No torch."""

import numpy as np

from mmtrain.records import IGNORED_LABEL

MASKED_SHARE, RANDOM_SHARE = 0.8, 0.1  # of the picked tokens; the rest stays as it is


def mask_tokens(
    ids_T: np.ndarray, mask_share: float, ordinary: range, mask_id: int, numbers: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Hide `mask_share` of a caption's pieces: ids to show and labels to guess, both int64 [T].

    Of the picked pieces 80 % become [MASK], 10 % a random piece, 10 % stay (Devlin et al., "BERT", 2018).
    Only `ordinary` ids are picked, and a random piece is one of them. The number picked is the share of the
    caption, rounded up or down by chance, and at least one.
    """
    shown_T, labels_T = ids_T.copy(), np.full_like(ids_T, IGNORED_LABEL)
    # Captions are short: on lists this takes half of what array operations would.
    ids = ids_T.tolist()
    candidates = [place for place, token in enumerate(ids) if token in ordinary]
    if mask_share == 0 or not candidates:
        return shown_T, labels_T
    num_picked = max(1, int(mask_share * len(candidates) + numbers.random()))
    for picked, (which, fate, guess) in enumerate(numbers.random((num_picked, 3)).tolist()):
        # The first places of a shuffle, and no more of it (Fisher and Yates 1938).
        other = picked + int(which * (len(candidates) - picked))
        candidates[picked], candidates[other] = candidates[other], candidates[picked]
        place = candidates[picked]
        labels_T[place] = ids[place]
        if fate < MASKED_SHARE:
            shown_T[place] = mask_id
        elif fate < MASKED_SHARE + RANDOM_SHARE:
            shown_T[place] = ordinary[int(guess * len(ordinary))]
    return shown_T, labels_T
