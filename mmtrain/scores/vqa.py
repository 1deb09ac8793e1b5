"""VQA accuracy by the official rules (Antol et al. 2015): answers normalized, people left out in turn."""

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence

ENOUGH_AGREE = 3  # that many people make an answer wholly right
ARTICLES = {"a", "an", "the"}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DIGITS = {word: str(number) for number, word in enumerate(NUMBERS)} | {"none": "0"}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
LONE_PERIOD = re.compile(r"\.(?!\d)")
COMMA_IN_NUMBER = re.compile(r"\d,\d")
# Words that get back an apostrophe they were written without; of several, each may be the one that is missing.
CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word
    for word in CONTRACTED.split()
    for place, letter in enumerate(word)
    if letter == "'"
} | {"somebody'd": "somebodyd"}  # the other way round, as in the official table


def normalized(answer: str) -> str:
    """An answer as it is compared: no punctuation or articles, numbers as digits, apostrophes where they belong."""
    words = [DIGITS.get(word, word) for word in without_punctuation(_on_one_line(answer)).lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def without_punctuation(answer: str) -> str:
    """Marks become a space between letters, and vanish beside a space or anywhere if the answer holds 1,000 or alike.

    Periods vanish unless a digit follows.
    """
    has_number = COMMA_IN_NUMBER.search(answer) is not None
    text = answer
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if beside_space or has_number else " ")
    return LONE_PERIOD.sub("", text)


def vqa_accuracy(answer: str, truths: Sequence[str]) -> float:
    """How right an answer is, in [0, 1]: the mean over people of min(1, others who said it / 3).

    What people said is stripped of punctuation where they do not all agree, and else compared as it is: it comes in
    lower case with numbers as digits. `truths` of one are the only right answer, as if all people had agreed.
    """
    if not truths:
        raise ValueError("a question has no answer to compare with; leave it out of the scores")
    said = normalized(answer)
    if len(truths) == 1:
        return float(said == normalized(truths[0]))
    if len(set(truths)) > 1:
        truths = [without_punctuation(truth) for truth in truths]
    agree = [truth == said for truth in truths]
    return statistics.fmean(min(1.0, (sum(agree) - own) / ENOUGH_AGREE) for own in agree)


def mean_vqa_accuracy(answers: Sequence[str], truths: Sequence[Sequence[str]]) -> float:
    """Mean of `vqa_accuracy` over questions; ValueError without one."""
    if len(answers) != len(truths) or not answers:
        raise ValueError(f"{len(answers)} answers to {len(truths)} questions; wanted one to each, and one question")
    return statistics.fmean(vqa_accuracy(answer, several) for answer, several in zip(answers, truths, strict=True))


def vqa_scores(answers: Sequence[str], truths: Sequence[Sequence[str]], kinds: Sequence[str]) -> dict[str, float]:
    """Accuracy of all answers and of each kind, beside that of the commonest answer: of all, and of each kind.

    Who answers by kind alone has read the question and not seen the image.
    """
    scores: dict[str, float] = {"vqa_accuracy": mean_vqa_accuracy(answers, truths)}
    by_kind: dict[str, list[int]] = defaultdict(list)
    for number, kind in enumerate(kinds):
        by_kind[kind].append(number)
    constant_of = {kind: commonest([truths[number] for number in own]) for kind, own in by_kind.items()}
    constant = commonest(truths)
    scores["constant_vqa_accuracy"] = mean_vqa_accuracy([constant] * len(truths), truths)
    if len(by_kind) > 1:
        scores["constant_by_kind_vqa_accuracy"] = mean_vqa_accuracy([constant_of[kind] for kind in kinds], truths)
        for kind, own in sorted(by_kind.items()):
            accuracy = mean_vqa_accuracy([answers[number] for number in own], [truths[number] for number in own])
            scores[f"vqa_accuracy_{kind.replace('/', '_') or 'other'}"] = accuracy
    return scores | {"num_questions": len(answers)}


def commonest(truths: Sequence[Sequence[str]]) -> str:
    """What people said most often, over all questions; the first in order of those that are as common."""
    said = Counter(answer for several in truths for answer in several)
    return min(said, key=lambda answer: (-said[answer], answer))


def _on_one_line(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()
