"""`mmtrain VERB`: the table of doors, and what is said to a word that is none."""

import sys
from types import ModuleType

import pytest

from mmtrain.cli import DOORS, main


def test_without_a_word_the_verbs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(verb in said for verb in DOORS)


@pytest.mark.parametrize(("word", "hint"), [("pretran", "did you mean pretrain?"), ("qqq", "the verbs are pretrain")])
def test_an_unknown_verb_ends_with_2_and_the_nearest_name(
    word: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word]) == 2
    assert hint in capsys.readouterr().err


def test_a_verb_hands_the_other_words_to_its_door_and_returns_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    door = ModuleType("door")
    door.main = lambda argv: 7 if argv == ["--config", "a.yaml", "seed=1"] else 0
    monkeypatch.setitem(sys.modules, DOORS["pretrain"].module, door)
    assert main(["pretrain", "--config", "a.yaml", "seed=1"]) == 7
