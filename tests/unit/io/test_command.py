"""How commands end: the exit code and the sentence of each kind of ending."""

import errno
import sys
from collections.abc import Callable

import pytest

from mmtrain.io.command import ExitCode, describe_os_error, naming, run_command
from mmtrain.io.errors import InputError
from tests.unit.io.test_console import Gone


def raising(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (InputError("x is no y"), ExitCode.REFUSED, "x is no y"),
        (FileNotFoundError(2, "No such file", "a\n.txt"), ExitCode.REFUSED, r"a\n.txt cannot be used: No such file"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 400), ExitCode.REFUSED, "(400 characters)"),
        (OSError("a sentence of its own"), ExitCode.REFUSED, "a sentence of its own"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "interrupted"),
    ],
    ids=["refused", "missing file", "long name", "no errno", "interrupted"],
)
def test_an_ending_is_one_sentence(
    error: BaseException, code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(raising(error), "mmtrain") == code
    said = capsys.readouterr().err
    assert said.startswith("mmtrain: ") and sentence in said and said.count("\n") == 1 and len(said) < 200


def test_an_error_of_the_program_keeps_its_traceback() -> None:
    with pytest.raises(ValueError, match="ours"):
        run_command(raising(ValueError("ours")), "mmtrain")


@pytest.mark.parametrize("code", [0, 1, 3, 75])
def test_the_code_of_the_work_is_the_code_of_the_command(code: int) -> None:
    assert run_command(lambda: code, "mmtrain") == code


@pytest.mark.parametrize(
    ("number", "needs", "code"),
    [(errno.EPIPE, True, 0), (errno.ENOSPC, True, 2), (errno.EPIPE, False, 1), (errno.ENOSPC, False, 1)],
)
def test_a_lost_output_ends_only_what_needs_it(
    number: int, needs: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        print("a line")
        return 1

    monkeypatch.setattr(sys, "stdout", Gone(number))
    assert run_command(work, "mmtrain", needs_stdout=needs) == code
    assert capsys.readouterr().err.count("\n") == (code == 2)


def test_an_error_without_a_name_gets_that_of_the_file() -> None:
    with pytest.raises(OSError, match="full") as found, naming("out.npz"):
        raise OSError(errno.ENOSPC, "full")
    assert describe_os_error(found.value) == "out.npz cannot be used: full"
