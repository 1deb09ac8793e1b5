"""Tokens drawn by chance: as often as they are likely, among those that are wanted, the same from the same seed."""

import pytest
import torch

from mmtrain.config.schema import TaskConfig
from mmtrain.tasks.beams import BeamSearch, Marks
from mmtrain.tasks.sampling import kept, with_chance

NUM_DRAWS = 4000
SHARES = torch.tensor([0.5, 0.25, 0.15, 0.1])


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ({"temperature": 1.0}, [0.5, 0.25, 0.15, 0.1]),
        ({"temperature": 0.5}, [0.25, 0.0625, 0.0225, 0.01]),
        ({"temperature": 1.0, "top_k": 2}, [0.5, 0.25, 0, 0]),
        ({"temperature": 1.0, "top_p": 0.6}, [0.5, 0.25, 0, 0]),
        ({"temperature": 1.0, "top_p": 0.01}, [1, 0, 0, 0]),
    ],
)
def test_tokens_are_drawn_as_often_as_they_are_likely(how: dict[str, float], wanted: list[float]) -> None:
    shares = torch.tensor(wanted) / sum(wanted)
    torch.testing.assert_close(kept(SHARES.log()[None], TaskConfig(**how)).softmax(dim=-1)[0], shares)
    rows = SHARES.log().expand(NUM_DRAWS, -1)
    drawn = with_chance(rows, TaskConfig(**how), [f"0/{number}" for number in range(NUM_DRAWS)]).argmax(dim=-1)
    torch.testing.assert_close(torch.bincount(drawn, minlength=4) / NUM_DRAWS, shares, atol=0.03, rtol=0)


def test_the_same_seed_draws_the_same_text() -> None:
    marks = Marks(pad_id=0, cls_id=2, sep_id=3, silent=(0, 1, 2, 4), num_pieces=20)
    table = torch.randn(20, 20, generator=torch.Generator().manual_seed(1))

    def text(seed: str) -> tuple[int, ...]:
        search = BeamSearch(TaskConfig(temperature=1.0), [[2]], 12, marks, [seed])
        while search.is_open:
            search.advance(table[[row[-1] for row in search.beginnings]])
        return search.found[0]

    assert text("0/1") == text("0/1")
    assert len({text(f"0/{number}") for number in range(10)}) > 8
