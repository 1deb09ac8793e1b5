"""Made-up answers that touch each rule of VQA's evaluation, and what the official arithmetic gives for them.

The official code (vqaEval.py of GT-Vision-Lab/VQA) is in the wheel of salesforce-lavis 1.0.2 too, as the module
`lavis.common.vqa_tools.vqa_eval`; with its file on the path this prints the recorded values:

    python -m tests.unit.scores.official_answers
"""

from contextlib import redirect_stdout
from io import StringIO
from typing import Any

# By rule: the answer given, and the answers of ten people.
CASES = {
    "everyone agrees": ("yes", ["yes"] * 10),
    "nobody said it": ("no", ["yes"] * 10),
    "one said it": ("cat", ["cat"] + ["dog"] * 9),
    "two said it": ("cat", ["cat"] * 2 + ["dog"] * 8),
    "three said it": ("cat", ["cat"] * 3 + ["dog"] * 7),
    "four said it": ("cat", ["cat"] * 4 + ["dog"] * 6),
    "articles": ("The dog on a mat", ["dog on mat"] * 5 + ["dog"] * 5),
    "articles of people stay": ("the dog", ["the dog"] * 5 + ["cat"] * 5),
    "numbers": ("Two", ["2"] * 6 + ["3"] * 4),
    "none is zero": ("none", ["0"] * 4 + ["1"] * 6),
    "ten": ("ten", ["10"] * 8 + ["11"] * 2),
    "eleven stays": ("eleven", ["11"] * 5 + ["eleven"] * 5),
    "contraction": ("dont know", ["don't know"] * 3 + ["yes"] * 7),
    "contraction with two apostrophes": ("couldnt've", ["couldn't've"] * 9 + ["no"]),
    "contraction the other way": ("somebody'd", ["somebodyd"] * 4 + ["nobody"] * 6),
    "lets stays": ("lets go", ["let's go"] * 5 + ["lets go"] * 5),
    "mark between letters": ("black/white", ["black white"] * 5 + ["black"] * 5),
    "mark beside a space": ("black / white", ["black white"] * 5 + ["black"] * 5),
    "mark at the end": ("yes!", ["yes"] * 5 + ["no"] * 5),
    "hyphen": ("t-shirt", ["t shirt"] * 4 + ["t-shirt"] * 3 + ["tshirt"] * 3),
    "comma in a number": ("1,000", ["1000"] * 4 + ["1,000"] * 4 + ["many"] * 2),
    "marks beside a number with a comma": ("1,000-2", ["10002"] * 5 + ["1000 2"] * 5),
    "period": ("st. john", ["st john"] * 5 + ["st. john"] * 2 + ["john"] * 3),
    "decimal point": ("2.5", ["2.5"] * 5 + ["25"] * 5),
    "punctuation of people who agree stays": ("t-shirt", ["t-shirt"] * 10),
    "capitals": ("YES", ["yes"] * 9 + ["no"]),
    "capitals of people stay": ("Paris", ["Paris"] * 10),
    "apostrophe stays": ("dog's", ["dog's"] * 5 + ["dogs"] * 5),
    "new line and tab": (" red\nand\twhite ", ["red and white"] * 5 + ["red"] * 5),
}
RECORDED = {
    "everyone agrees": 1.0,
    "nobody said it": 0.0,
    "one said it": 0.3,
    "two said it": 0.6,
    "three said it": 0.9,
    "four said it": 1.0,
    "articles": 1.0,
    "articles of people stay": 0.0,
    "numbers": 1.0,
    "none is zero": 1.0,
    "ten": 1.0,
    "eleven stays": 1.0,
    "contraction": 0.9,
    "contraction with two apostrophes": 1.0,
    "contraction the other way": 1.0,
    "lets stays": 1.0,
    "mark between letters": 1.0,
    "mark beside a space": 1.0,
    "mark at the end": 1.0,
    "hyphen": 1.0,
    "comma in a number": 1.0,
    "marks beside a number with a comma": 1.0,
    "period": 1.0,
    "decimal point": 1.0,
    "punctuation of people who agree stays": 0.0,
    "capitals": 1.0,
    "capitals of people stay": 0.0,
    "apostrophe stays": 1.0,
    "new line and tab": 1.0,
}


def official_accuracies() -> dict[str, float]:
    """Of each case, in [0, 1], unrounded."""
    from vqa_eval import VQAEval

    class Answers:
        def __init__(self, qa: dict[str, Any]) -> None:
            self.qa = qa

        def getQuesIds(self) -> list[str]:  # noqa: N802
            return list(self.qa)

    truths = {
        rule: {
            "answers": [{"answer": said, "answer_id": number} for number, said in enumerate(people)],
            "question_type": "",
            "answer_type": "",
        }
        for rule, (_, people) in CASES.items()
    }
    given = {rule: {"answer": answer} for rule, (answer, _) in CASES.items()}
    judge = VQAEval(Answers(truths), Answers(given), n=12)
    with redirect_stdout(StringIO()):
        judge.evaluate()
    return {rule: accuracy / 100 for rule, accuracy in judge.evalQA.items()}


if __name__ == "__main__":
    print(official_accuracies())
