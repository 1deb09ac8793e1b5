"""Captions written and pairs re-ranked by a model of samples made by hand, on whatever layout; run inside ranks."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

NUM_SAMPLES = 13
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


def written_on_a_rank(tp: int, pp: int, ways: list[dict[str, Any]]) -> tuple[list[Any], list[Any], dict[str, float]]:
    """What is written in each way on this layout; this rank's part of the weights; and the re-ranked recalls."""
    from mmtrain.engine.build import build_engine, join
    from mmtrain.parallel.collectives import gathered_lists, told_by_last
    from mmtrain.parallel.launch import read_launch
    from mmtrain.tasks.retrieval import RetrievalScorer
    from mmtrain.tasks.writing import Writer
    from tests.helpers import VOCAB_SIZE

    plan = plan_of(tp, pp)
    place = join(plan, read_launch())
    engine = build_engine(plan, place, num_pieces=VOCAB_SIZE)
    engine.states.model.eval()
    grid, coord, found = place.groups.grid, place.groups.coord, []
    for way in ways:
        writer = Writer(plan_of(tp, pp, **way), place, VOCAB_SIZE)
        batches = MadeSplit().batches(4, dp=grid.dp, dp_rank=coord.dp)
        parts = [gathered_lists(part, place.groups.data) for part in writer.write(engine.passes, batches)]
        found.append(told_by_last([tokens for part in parts for tokens in part][:NUM_SAMPLES], place.groups.pipe))
    kept = [(where, part) for where, part in engine.kept() if "/" not in where.name]  # without moments
    weights = [(where.name, where.global_shape, where.index, part.numpy().copy()) for where, part in kept]
    scorer = RetrievalScorer(plan_of(tp, pp, name="retrieval", shortlist=4), place, MadeSplit())
    return found, weights, scorer.run(engine.passes).scores["reranked"]
