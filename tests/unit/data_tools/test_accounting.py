"""Accounts of a build: a row or caption that vanished is an error."""

import pytest

from data_tools.accounting import AccountingError, Accounts
from data_tools.records import Record
from data_tools.rows import Loss

KEPT = Record(0, "a.png", captions=("x", "y"), num_captions_read=4, num_captions_repeated=1, num_captions_lost=1,
              losses=(Loss("caption is not text"),), facts={"questions": [{}, {}]}, num_questions_read=2)  # fmt: skip
LEFT_OUT = Record(1, "b.png", "missing file", num_captions_read=1, num_questions_read=3)


def accounts(apart: bool = False) -> Accounts:
    found = Accounts()
    for record in (KEPT, LEFT_OUT):
        found.enter(record, apart=apart)
    return found


@pytest.mark.parametrize(("apart", "samples"), [(False, 1), (True, 2)])
def test_rows_captions_questions_and_samples_add_up(apart: bool, samples: int) -> None:
    found = accounts(apart)
    found.check(num_rows=2, num_samples=samples)
    assert found.record() == {
        "rows": {"read": 2, "written": 1, "rejected": 1, "repeated": 0},
        "captions": {"read": 5, "written": 2, "rejected": 2, "repeated": 1},
        "questions": {"read": 5, "written": 2, "rejected": 3, "repeated": 0},
    }
    assert str(found) == (
        "2 rows read = 1 kept + 1 rejected; 5 captions = 2 kept + 2 rejected + 1 repeated; "
        "5 questions = 2 kept + 3 rejected"
    )
    assert str(Accounts.of(found.record())) == str(found)


@pytest.mark.parametrize(("num_rows", "num_samples"), [(3, 1), (1, 1), (2, 2), (2, 0)])
def test_what_is_not_accounted_for_is_an_error(num_rows: int, num_samples: int) -> None:
    with pytest.raises(AccountingError, match="please report this"):
        accounts().check(num_rows, num_samples)


def test_a_caption_that_vanished_is_an_error() -> None:
    found = Accounts()
    found.enter(Record(0, "a.png", captions=("x",), num_captions_read=2), apart=False)
    with pytest.raises(AccountingError, match="captions: read 2"):
        found.check(1, 1)
