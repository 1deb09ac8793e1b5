"""A corpus of made-up captions, and what the public scorers give for it.

Where pycocoevalcap 1.2 is installed, this prints the recorded values:

    python -m tests.unit.scores.public_captions
"""

from random import Random

SEED, NUM_IMAGES, MAX_REFERENCES, MAX_WORDS = 7, 40, 5, 12
WORDS = [
    "a",
    "the",
    "dog",
    "cat",
    "ball",
    "red",
    "small",
    "two",
    "runs",
    "sits",
    "on",
    "over",
    "grass",
    "street",
    "and",
    "with",
]
BY_HAND = [
    ("a red ball", ["a red ball"]),  # the same
    ("a dog runs", ["two cats sleep on the warm sofa"]),  # nothing shared
    ("", ["a dog on the grass", "the dog"]),  # nothing said
    ("dog", ["dog", "cat"]),  # no pair of words
    ("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"]),  # clipped counts
    ("a cat on a mat with a hat", ["a cat", "a cat on the mat with a big red hat on its head"]),  # as near both ways
]
RECORDED = {
    "bleu_1": 0.7861842105237297,
    "bleu_2": 0.642512721298319,
    "bleu_3": 0.5330880963466644,
    "bleu_4": 0.4586644434397769,
    "rouge_l": 0.7065195739829286,
    "cider_d": 1.812525617546435,
}


def corpus() -> tuple[list[str], list[list[str]]]:
    """Captions, and the references of each image; words with single spaces between."""
    rng = Random(SEED)
    made = []
    for _ in range(NUM_IMAGES):
        several = [_sentence(rng) for _ in range(rng.randint(1, MAX_REFERENCES))]
        made.append((_altered(rng.choice(several), rng), several))
    captions, references = zip(*BY_HAND, *made, strict=True)
    return list(captions), list(references)


def _sentence(rng: Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(1, MAX_WORDS)))


def _altered(sentence: str, rng: Random) -> str:
    """The sentence with about every fifth word another, and perhaps a tail."""
    words = [rng.choice(WORDS) if rng.random() < 0.2 else word for word in sentence.split()]
    return " ".join(words + rng.choices(WORDS, k=rng.randint(0, 2)))


def public_scores() -> dict[str, float]:
    """What pycocoevalcap gives; its `Cider` is CIDEr-D."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    captions, references = corpus()
    said = {number: [caption] for number, caption in enumerate(captions)}
    wanted = dict(enumerate(references))
    bleu = {f"bleu_{n}": score for n, score in enumerate(Bleu(4).compute_score(wanted, said, verbose=0)[0], 1)}
    scores = bleu | {
        "rouge_l": Rouge().compute_score(wanted, said)[0],
        "cider_d": Cider().compute_score(wanted, said)[0],
    }
    return {name: float(score) for name, score in scores.items()}


if __name__ == "__main__":
    print(public_scores())
