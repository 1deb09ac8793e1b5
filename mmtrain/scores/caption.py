"""Scores of captions against references, both given as lists of words: BLEU, ROUGE-L, CIDEr and CIDEr-D.

Each is the corpus's score as the COCO caption evaluation computes it (Chen et al. 2015).
"""

import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Sequence

Words = Sequence[str]
NGram = tuple[str, ...]

MAX_ORDER = 4  # longest n-gram
ROUGE_BETA = 1.2  # how much more recall weighs than precision
CIDER_SIGMA = 6.0  # words of difference in length at which CIDEr-D has lost 39 %
CIDER_SCALE = 10.0
# What keeps the public scorer from dividing by 0; with other ones the last digits would differ.
SMALL, TINY = 1e-9, 1e-15
WORD = re.compile(r"\w+(?:['’\-]\w+)*")


def words_of(caption: str) -> list[str]:
    """Lower-case words without punctuation; the public evaluation splits contractions too ("don't": "do", "n't")."""
    return WORD.findall(caption.lower())


def caption_scores(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Every score of one caption per image, by name; each image has one reference or more."""
    said = [words_of(caption) for caption in captions]
    wanted = [[words_of(reference) for reference in several] for several in references]
    return {
        **{f"bleu_{order}": value for order, value in enumerate(bleu(said, wanted), 1)},
        "rouge_l": rouge_l(said, wanted),
        "cider": cider(said, wanted),
        "cider_d": cider_d(said, wanted),
    }


def bleu(said: Sequence[Words], wanted: Sequence[Sequence[Words]]) -> list[float]:
    """BLEU-1 to BLEU-4 of the corpus; of an image's references the nearest in length counts (Papineni et al. 2002)."""
    _refuse_uneven(said, wanted)
    right, tried = [0] * MAX_ORDER, [0] * MAX_ORDER
    for words, several in zip(said, wanted, strict=True):
        most: Counter[NGram] = Counter()
        for reference in several:
            most |= _ngrams(reference)
        for ngram, count in _ngrams(words).items():
            right[len(ngram) - 1] += min(count, most[ngram])
        for order in range(MAX_ORDER):
            tried[order] += max(0, len(words) - order)
    num_words = sum(len(words) for words in said)
    num_wanted = sum(_nearest_length(words, several) for words, several in zip(said, wanted, strict=True))
    ratio = (num_words + TINY) / (num_wanted + SMALL)
    brevity = 1.0 if ratio >= 1 else math.exp(1 - 1 / ratio)
    precisions = [(hits + TINY) / (tries + SMALL) for hits, tries in zip(right, tried, strict=True)]
    return [brevity * math.prod(precisions[:order]) ** (1 / order) for order in range(1, MAX_ORDER + 1)]


def rouge_l(said: Sequence[Words], wanted: Sequence[Sequence[Words]]) -> float:
    """Mean F-measure of the longest common subsequence, an image's best recall with its best precision (Lin 2004)."""
    _refuse_uneven(said, wanted)
    return statistics.fmean(_rouge_l_of(words, several) for words, several in zip(said, wanted, strict=True))


def cider(said: Sequence[Words], wanted: Sequence[Sequence[Words]]) -> float:
    """Mean cosine of n-grams weighted by rarity among the images' references (Vedantam et al. 2015), unstemmed.

    Rarity is counted in the corpus that is scored, so a single image scores 0.
    """
    return _consensus(said, wanted, _cosine)


def cider_d(said: Sequence[Words], wanted: Sequence[Sequence[Words]]) -> float:
    """CIDEr with counts clipped to the reference's and other lengths punished; what the public servers call CIDEr."""
    return _consensus(said, wanted, _clipped_cosine)


def _refuse_uneven(said: Sequence[Words], wanted: Sequence[Sequence[Words]]) -> None:
    if len(said) != len(wanted) or not said:
        raise ValueError(f"{len(said)} captions and references of {len(wanted)} images; wanted one caption an image")
    if not all(wanted):
        raise ValueError("an image has no reference; each needs one at least")


def _ngrams(words: Words) -> Counter[NGram]:
    return Counter(
        tuple(words[start : start + order])
        for order in range(1, MAX_ORDER + 1)
        for start in range(len(words) - order + 1)
    )


def _nearest_length(words: Words, references: Sequence[Words]) -> int:
    """The shorter of two that are as near."""
    return min((len(reference) for reference in references), key=lambda length: (abs(length - len(words)), length))


def _rouge_l_of(words: Words, references: Sequence[Words]) -> float:
    shared = [(_common_length(words, reference), len(reference)) for reference in references]
    precision = max(length / max(len(words), 1) for length, _ in shared)
    recall = max(length / max(total, 1) for length, total in shared)
    if not precision or not recall:
        return 0.0
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)


def _common_length(first: Words, second: Words) -> int:
    """Words of the longest common subsequence, row by row of the usual table."""
    row = [0] * (len(second) + 1)
    for word in first:
        before, row = row, [0]
        for place, other in enumerate(second):
            row.append(before[place] + 1 if word == other else max(before[place + 1], row[place]))
    return row[-1]


class _Weighted:
    """The n-grams of a caption: how often times how rare, by length, with the norms of each length's vector."""

    def __init__(self, words: Words, seen: Counter[NGram], log_num_images: float) -> None:
        self.num_words = len(words)
        self.vectors: list[dict[NGram, float]] = [{} for _ in range(MAX_ORDER)]
        for ngram, count in _ngrams(words).items():
            self.vectors[len(ngram) - 1][ngram] = count * (log_num_images - math.log(max(1, seen[ngram])))
        self.norms = [math.sqrt(sum(value**2 for value in vector.values())) for vector in self.vectors]


def _consensus(
    said: Sequence[Words],
    wanted: Sequence[Sequence[Words]],
    similarity: Callable[[_Weighted, _Weighted, int], float],
) -> float:
    _refuse_uneven(said, wanted)
    seen: Counter[NGram] = Counter()  # in the references of how many images
    for several in wanted:
        seen.update({ngram for reference in several for ngram in _ngrams(reference)})
    log_num_images = math.log(len(said))
    scores = []
    for words, several in zip(said, wanted, strict=True):
        own = _Weighted(words, seen, log_num_images)
        others = [_Weighted(reference, seen, log_num_images) for reference in several]
        scores.append(statistics.fmean(similarity(own, other, n) for other in others for n in range(MAX_ORDER)))
    return CIDER_SCALE * statistics.fmean(scores)


def _cosine(own: _Weighted, other: _Weighted, which: int) -> float:
    norms = own.norms[which] * other.norms[which]
    vector = other.vectors[which]
    return sum(value * vector.get(ngram, 0.0) for ngram, value in own.vectors[which].items()) / norms if norms else 0.0


def _clipped_cosine(own: _Weighted, other: _Weighted, which: int) -> float:
    norms = own.norms[which] * other.norms[which]
    if not norms:
        return 0.0
    vector = other.vectors[which]
    clipped = (
        (min(value, vector.get(ngram, 0.0)), vector.get(ngram, 0.0)) for ngram, value in own.vectors[which].items()
    )
    # The public scorer measures length in pairs of words, which differs only where a caption is empty.
    longer = max(own.num_words - 1, 0) - max(other.num_words - 1, 0)
    return sum(low * high for low, high in clipped) / norms * math.exp(-(longer**2) / (2 * CIDER_SIGMA**2))
