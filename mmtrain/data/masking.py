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
    candidates = np.flatnonzero((ids_T >= ordinary.start) & (ids_T < ordinary.stop))
    if mask_share == 0 or not len(candidates):
        return shown_T, labels_T
    num_picked = max(1, int(mask_share * len(candidates) + numbers.random()))
    picked = numbers.permutation(candidates)[:num_picked]
    fate = numbers.random(len(picked))
    guesses = numbers.integers(ordinary.start, ordinary.stop, len(picked))
    labels_T[picked] = ids_T[picked]
    kept_or_guessed = np.where(fate < MASKED_SHARE + RANDOM_SHARE, guesses, ids_T[picked])
    shown_T[picked] = np.where(fate < MASKED_SHARE, mask_id, kept_or_guessed)
    return shown_T, labels_T
