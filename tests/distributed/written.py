"""Captions written and pairs re-ranked by a model of samples made by hand, on whatever layout; run inside ranks."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

NUM_SAMPLES, NUM_ANSWERS = 13, 5
SHAPE = {"image_size": 16, "max_text_length": 12}


class MadeSplit:
    """Samples made by hand, cut among ranks as HeldOut cuts."""

    twins = ()

    def __len__(self) -> int:
        return NUM_SAMPLES

    def batches(
        self, batch_size: int, *, dp: int = 1, dp_rank: int = 0, trim: bool = True, twins: bool = False
    ) -> Iterator[Any]:
        """This rank's batches; beyond the split the places are empty."""
        from tests.helpers import made_batch

        for start in range(0, NUM_SAMPLES, dp * batch_size):
            first = start + dp_rank * batch_size
            yield _within(made_batch(range(first, first + batch_size), **SHAPE), NUM_SAMPLES)

    def paired(
        self, pairs: Sequence[tuple[int, int]], batch_size: int, *, dp: int = 1, dp_rank: int = 0, trim: bool = True
    ) -> Iterator[Any]:
        """This rank's batches of the image of one sample with the text of another."""
        from tests.helpers import made_batch

        whole = made_batch(range(NUM_SAMPLES), **SHAPE)
        for start in range(0, len(pairs), dp * batch_size):
            places = [start + dp_rank * batch_size + row for row in range(batch_size)]
            images, texts = ([pairs[min(place, len(pairs) - 1)][side] for place in places] for side in (0, 1))
            yield replace(
                whole,
                **{name: getattr(whole, name)[images] for name in ("images_BCHW", "has_image_B", "image_ids_B")},
                **{
                    name: getattr(whole, name)[texts]
                    for name in (
                        "text_ids_BT", "masked_ids_BT", "masked_labels_BT", "text_lengths_B", "prompt_lengths_B",
                        "prefix_lengths_B",
                        "has_text_B", "caption_ids_B", "draws_B2", "places_B",
                    )
                },
            )  # fmt: skip


def _within(batch: Any, count: int) -> Any:
    there_B = batch.places_B < count
    return replace(batch, has_image_B=batch.has_image_B & there_B, has_text_B=batch.has_text_B & there_B)


def plan_of(tp: int, pp: int, **task: Any) -> Any:
    """A plan whose weights are large enough that captions differ from image to image."""
    from tests.helpers import tiny_plan

    return tiny_plan(
        parallel={"tp": tp, "pp": pp},
        model={"init_std": 0.3},
        train={"micro_batch_size": 4, "global_batch_size": 16},
        seed=4,
        task=task,
    )


def asked_plan(tp: int, pp: int, answering: str) -> Any:
    """A plan that answers questions, among five answers of one to three tokens where it does not write."""
    answers = [str(number) for number in range(NUM_ANSWERS)]
    return plan_of(tp, pp, name="vqa", answering=answering, answers=answers, max_new_tokens=4, shortlist=3)


class Pieces:
    """A tokenizer whose n-th answer is one to three pieces."""

    pad_id, unk_id, cls_id, sep_id, mask_id = range(5)
    num_pieces = 64

    def encode(self, text: str, max_length: int) -> list[int]:
        """[CLS] pieces [SEP]."""
        number = int(text)
        return [self.cls_id, *range(10 + 7 * number, 11 + 7 * number + number % 3), self.sep_id]

    def decode(self, ids: Sequence[int]) -> str:
        """The ids themselves."""
        return " ".join(map(str, ids))


def asked_batches(dp: int, dp_rank: int) -> Iterator[Any]:
    """The split with the first three tokens of each text as its question."""
    for batch in MadeSplit().batches(4, dp=dp, dp_rank=dp_rank):
        lengths_B = batch.text_lengths_B.clamp(1, 3)
        yield replace(batch, prompt_lengths_B=lengths_B, prefix_lengths_B=lengths_B)


def answered_on_a_rank(tp: int, pp: int) -> tuple[dict[str, list[str]], list[Any]]:
    """What is answered in each of the three ways on this layout; this rank's part of the weights."""
    from mmtrain.engine.build import build_engine, join
    from mmtrain.parallel.collectives import gathered_lists, told_by_last
    from mmtrain.parallel.launch import read_launch
    from mmtrain.tasks.answering import build_answerer
    from tests.helpers import VOCAB_SIZE

    place = join(asked_plan(tp, pp, "choose"), read_launch())
    engine = build_engine(asked_plan(tp, pp, "choose"), place, num_pieces=VOCAB_SIZE)
    engine.states.model.eval()
    grid, coord, found = place.groups.grid, place.groups.coord, {}
    for answering in ("write", "rank", "choose"):
        answerer = build_answerer(asked_plan(tp, pp, answering), place, Pieces())
        batches = asked_batches(grid.dp, coord.dp)
        parts = [gathered_lists(part, place.groups.data) for part in answerer.answer(engine.passes, batches)]
        found[answering] = told_by_last([answer for part in parts for answer in part][:NUM_SAMPLES], place.groups.pipe)
    return found, _weights_of(engine)


def _weights_of(engine: Any) -> list[Any]:
    kept = [(where, part) for where, part in engine.kept() if "/" not in where.name]  # without moments
    return [(where.name, where.global_shape, where.index, part.numpy().copy()) for where, part in kept]


def written_on_a_rank(tp: int, pp: int, ways: list[dict[str, Any]]) -> tuple[list[Any], list[Any], dict[str, float]]:
    """What is written in each way on this layout; this rank's part of the weights; and the re-ranked recalls."""
    from mmtrain.engine.build import build_engine, join
    from mmtrain.parallel.collectives import gathered_lists, told_by_last
    from mmtrain.parallel.launch import read_launch
    from mmtrain.tasks.beams import Marks
    from mmtrain.tasks.retrieval import RetrievalScorer
    from mmtrain.tasks.writing import Writer
    from tests.helpers import VOCAB_SIZE

    marks = Marks(pad_id=0, cls_id=2, sep_id=3, silent=(0, 1, 2, 4), num_pieces=VOCAB_SIZE)
    plan = plan_of(tp, pp)
    place = join(plan, read_launch())
    engine = build_engine(plan, place, num_pieces=VOCAB_SIZE)
    engine.states.model.eval()
    grid, coord, found = place.groups.grid, place.groups.coord, []
    for way in ways:
        writer = Writer(plan_of(tp, pp, **way), place, marks)
        batches = MadeSplit().batches(4, dp=grid.dp, dp_rank=coord.dp)
        parts = [gathered_lists(part, place.groups.data) for part in writer.write(engine.passes, batches)]
        found.append(told_by_last([tokens for part in parts for tokens in part][:NUM_SAMPLES], place.groups.pipe))
    scorer = RetrievalScorer(plan_of(tp, pp, name="retrieval", shortlist=4), place, MadeSplit())
    return found, _weights_of(engine), scorer.run(engine.passes).scores["reranked"]
