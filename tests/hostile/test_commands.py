"""Commands on damaged files, odd names and values at their edge: the right result, or one sentence and exit code 2."""

from collections.abc import Callable

import pytest

from tests.hostile.conftest import Ended, Tiny

Command = Callable[..., Ended]


def refused(ended: Ended, *fragments: str) -> None:
    """One sentence on standard error and exit code 2."""
    assert ended.code == 2, (ended.out, ended.err)
    assert ended.err.count("\n") == 1 and all(fragment in ended.err for fragment in fragments), ended.err


EDGES = {
    "max-length 1": (["--max-length", "1"], "--max-length"),
    "max-length 0": (["--max-length", "0"], "--max-length"),
    "max-length 100000": (["--max-length", "100000"], "--max-length"),
    "max-length 10^5000": (["--max-length", "9" * 5000], "--max-length"),
    "temperature 0": (["--sample", "--temperature", "0"], "--temperature"),
    "temperature -1": (["--sample", "--temperature=-1"], "--temperature"),
    "temperature nan": (["--sample", "--temperature", "nan"], "--temperature"),
    "temperature inf": (["--sample", "--temperature", "inf"], "--temperature"),
    "temperature words": (["--sample", "--temperature", "warm"], "--temperature"),
    "temperature alone": (["--temperature", "0.3"], "--temperature"),
    "top-p -0.2": (["--sample", "--top-p=-0.2"], "--top-p"),
    "top-p 0": (["--sample", "--top-p", "0"], "--top-p"),
    "top-p 1.5": (["--sample", "--top-p", "1.5"], "--top-p"),
    "top-p nan": (["--sample", "--top-p", "nan"], "--top-p"),
    "top-p alone": (["--top-p", "0.5"], "--top-p"),
    "length-penalty nan": (["--length-penalty", "nan"], "--length-penalty"),
    "length-penalty inf": (["--length-penalty", "inf"], "--length-penalty"),
    "length-penalty sampled": (["--sample", "--length-penalty", "2"], "--length-penalty"),
    "length-penalty greedy": (["--beams", "1", "--length-penalty", "2"], "--length-penalty"),
    "seed 10^20": (["--sample", "--seed", "9" * 20], "--seed"),
    "seed -1": (["--sample", "--seed=-1"], "--seed"),
    "beams 0": (["--beams", "0"], "--beams"),
    "beams 10^6": (["--beams", "1000000"], "--beams"),
    "beams sampled": (["--sample", "--beams", "2"], "--beams"),
    "batch 0": (["--batch-size", "0"], "--batch-size"),
    "batch 1.5": (["--batch-size", "1.5"], "--batch-size"),
    "question empty": (["--ask", "  "], "--ask"),
}


@pytest.mark.parametrize("case", EDGES)
def test_generate_refuses_values_at_their_edge(case: str, tiny: Tiny, command: Command) -> None:
    words, flag = EDGES[case]
    ended = command("mmtrain", "generate", tiny.export, tiny.pictures / "0.jpg", *words)
    refused(ended, flag)
    assert ended.out == ""
