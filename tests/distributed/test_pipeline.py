"""Stages of a pipeline, alone and beside data and tensor parallelism, compute what one process computes."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.comparison import Distance, Ranks, Run, Training, assembled, distance, train_on, trained_on_a_rank
from tests.helpers import VOCAB_SIZE, made_batch, run_ranks, tiny_plan
from tests.unit.engine.scored import EVERY, WrittenSplit

BLOCK, GLOBAL_BATCH, HEAD_SIZE = 8, 24, 8  # samples of a micro-batch over the dp ranks, of a step; of tiny_plan
BOUND = 1e-4  # of losses and norms relative to their size, of gradients relative to their tensor's largest entry
WEIGHT_BOUND = 1e-3  # the same of weights: after two steps the largest entry of a bias is no more than two steps large
# The towers have widths of their own, 17 image tokens do not divide by tp, and 11 text positions are filled up.
ODD = {"hidden_size": 32, "vision_hidden_size": 48, "text_hidden_size": 16, "image_size": 32, "embedding_size": 20}
DP2_PP2, TP2_PP2_SP, DP2_TP2 = Ranks(dp=2, pp=2), Ranks(tp=2, pp=2, shares_tokens=True), Ranks(dp=2, tp=2)
# Two parts of the depth on each rank; that schedule wants whole rounds of micro-batches, so there is one more.
INTERLEAVED, ROUNDS = Ranks(dp=2, pp=2, chunks=2), {"global_batch_size": GLOBAL_BATCH + BLOCK}
Found = dict[str, Training]


def plan_of(ranks: Ranks, gather: str = "per_use", negatives: str = "micro_batch", **sections: Any) -> Any:
    """Three micro-batches a step. Why this epsilon: tests.benchmarks.layouts."""
    parallel = {**ranks.parallel, **sections.pop("parallel", {})}
    zero = {"stage": 3, "gather": gather, **sections.pop("zero", {})}
    train = {"global_batch_size": GLOBAL_BATCH, "micro_batch_size": BLOCK // ranks.dp, **sections.pop("train", {})}
    return tiny_plan(
        parallel=parallel,
        zero=zero,
        itc={"negatives": negatives},
        train={**train, "learning_rate": 1e-3, "epsilon": 1e-6},
        **sections,
    )


def run_of(ranks: Ranks, gather: str = "per_use", negatives: str = "micro_batch", **sections: Any) -> Run:
    """Two steps of it."""
    return Run(plan_of(ranks, gather, negatives, **sections), num_steps=2)


def uneven(ranks: Ranks, gather: str = "per_use", negatives: str = "micro_batch") -> Run:
    """The same on samples whose neighbourhoods lack images, texts, masked tokens, pairs, or everything."""
    return Run(plan_of(ranks, gather, negatives), num_steps=2, batches_of=uneven_batches_of)


LACKS = ("nothing", "images", "texts", "masks", "pairs", "everything")
NEIGHBOURS = 4  # samples that lack the same: a micro-batch of one of two ranks


def uneven_batches_of(step: int, plan: Any, dp: int, dp_rank: int) -> list[Any]:
    """This rank's micro-batches of a step, after each step other neighbourhoods lack other things."""
    size, together = plan.train.micro_batch_size, plan.train.micro_batch_size * dp
    first = step * GLOBAL_BATCH + dp_rank * size
    starts = range(first, first + GLOBAL_BATCH, together)
    return [lacking(made_batch(range(start, start + size))) for start in starts]


def lacking(batch: Any) -> Any:
    """`batch` without what its places lack."""
    from mmtrain.records import IGNORED_LABEL

    kind_B = (batch.places_B // NEIGHBOURS + batch.places_B // GLOBAL_BATCH) % len(LACKS)
    lacks = {name: kind_B == number for number, name in enumerate(LACKS)}
    odd_B = batch.places_B % 2 == 1
    has_image_B = batch.has_image_B & ~(lacks["images"] | lacks["everything"] | lacks["pairs"] & odd_B)
    has_text_B = batch.has_text_B & ~(lacks["texts"] | lacks["everything"] | lacks["pairs"] & ~odd_B)
    return replace(
        batch,
        images_BCHW=batch.images_BCHW * has_image_B[:, None, None, None],
        text_ids_BT=batch.text_ids_BT * has_text_B[:, None],
        masked_ids_BT=batch.masked_ids_BT * has_text_B[:, None],
        masked_labels_BT=batch.masked_labels_BT.masked_fill((~has_text_B | lacks["masks"])[:, None], IGNORED_LABEL),
        text_lengths_B=batch.text_lengths_B * has_text_B,
        has_image_B=has_image_B,
        has_text_B=has_text_B,
    )


class SplitOfTwo(WrittenSplit):
    """The held-out samples made by hand; a twin's text is that of the same place of another seed."""

    def batches(self, batch_size: int, *, twins: bool = False, **where: Any) -> Iterator[Any]:
        for batch in super().batches(batch_size, **where):
            other = made_batch(range(int(batch.places_B[0]), int(batch.places_B[-1]) + 1), seed=1)
            texts = {"text_ids_BT": other.text_ids_BT, "text_lengths_B": other.text_lengths_B}
            yield replace(batch, **texts) if twins else batch


def found_on_a_rank(runs: dict[str, Run], evaluated: Any) -> tuple[dict[str, Any], Any]:
    """The runs, then the held-out report of the first weights of `evaluated`: one start of processes for both."""
    from megatron.core import parallel_state

    from mmtrain.engine.build import build_engine, join
    from mmtrain.engine.evaluation import Evaluation
    from mmtrain.parallel.launch import read_launch

    trained = trained_on_a_rank(runs)
    parallel_state.destroy_model_parallel()
    place = join(evaluated, read_launch())
    evaluation = Evaluation(SplitOfTwo(), EVERY, place.groups, place.device, NEIGHBOURS, 5)
    return trained, build_engine(evaluated, place, num_pieces=VOCAB_SIZE, evaluation=evaluation).evaluate()


ALONE = {
    "micro_batch": run_of(Ranks()),
    "global_batch": run_of(Ranks(), negatives="global_batch"),
    "uneven micro_batch": uneven(Ranks()),
    "uneven global_batch": uneven(Ranks(), negatives="global_batch"),
    "odd": run_of(Ranks(), model=ODD),
    "bf16": run_of(Ranks(), precision="bf16"),
    "whole rounds micro_batch": run_of(Ranks(), train=ROUNDS),
    "whole rounds global_batch": run_of(Ranks(), negatives="global_batch", train=ROUNDS),
}
# What is run, and which of `ALONE` it must equal. Runs without stages come first: DeepSpeed numbers all parameters that
# a process ever made, and ranks that once held different stages would disagree on the numbers.
ON_FOUR = {
    "dp2-tp2 uneven per_use": (uneven(DP2_TP2, "per_use"), "uneven micro_batch"),
    "dp2-tp2 uneven per_step": (uneven(DP2_TP2, "per_step", "global_batch"), "uneven global_batch"),
    "dp2-pp2 per_use": (run_of(DP2_PP2, "per_use"), "micro_batch"),
    "dp2-pp2 per_step": (run_of(DP2_PP2, "per_step", "global_batch"), "global_batch"),
    "dp2-pp2 cut by hand": (run_of(DP2_PP2, parallel={"stage_layers": (1, 5)}), "micro_batch"),
    "dp2-pp2 recomputed": (run_of(DP2_PP2, "per_step", model={"recompute": "full"}), "micro_batch"),
    "dp2-pp2 uneven per_use": (uneven(DP2_PP2, "per_use", "global_batch"), "uneven global_batch"),
    "dp2-pp2 uneven per_step": (uneven(DP2_PP2, "per_step"), "uneven micro_batch"),
    "dp2-pp2 bf16": (run_of(DP2_PP2, "per_step", precision="bf16"), "bf16"),
    "interleaved per_use": (run_of(INTERLEAVED, "per_use", train=ROUNDS), "whole rounds micro_batch"),
    "interleaved per_step": (
        run_of(INTERLEAVED, "per_step", "global_batch", train=ROUNDS, model={"recompute": "full"}),
        "whole rounds global_batch",
    ),
    "interleaved ZeRO-1": (
        run_of(INTERLEAVED, "auto", train=ROUNDS, zero={"stage": 1}),
        "whole rounds micro_batch",
    ),
    "tp2-pp2-sp": (run_of(TP2_PP2_SP, negatives="global_batch"), "global_batch"),
    "tp2-pp2-sp odd": (run_of(TP2_PP2_SP, "per_step", model=ODD), "odd"),
}


@pytest.fixture(scope="module")
def alone() -> tuple[Found, list[Any]]:
    return found_on(1, ALONE, plan_of(Ranks()))


@pytest.fixture(scope="module")
def on_four() -> tuple[Found, list[Any]]:
    return found_on(4, {name: run for name, (run, _) in ON_FOUR.items()}, plan_of(DP2_PP2))


def found_on(world_size: int, runs: dict[str, Run], evaluated: Any) -> tuple[Found, list[Any]]:
    """Whole runs, and every rank's held-out report."""
    ranks = run_ranks(world_size, found_on_a_rank, runs, evaluated)
    return assembled([trained for trained, _ in ranks]), [report for _, report in ranks]


def assert_near(far: Distance) -> None:
    """Within the bounds; a key bias, whose gradient is rounding, within what the optimizer may move it."""
    assert max(far.losses, far.grad_norm, far.gradient[0]) <= BOUND, far
    assert far.weight[0] <= WEIGHT_BOUND, far
    assert far.key_bias <= 2 * 1e-3, far


@pytest.mark.parametrize("name", [name for name in ON_FOUR if "bf16" not in name])
def test_four_ranks_compute_what_one_process_computes(
    name: str, alone: tuple[Found, list[Any]], on_four: tuple[Found, list[Any]]
) -> None:
    assert_near(distance(on_four[0][name], alone[0][ON_FOUR[name][1]], HEAD_SIZE))


def test_stages_in_bf16_are_as_near_as_bf16_allows(
    alone: tuple[Found, list[Any]], on_four: tuple[Found, list[Any]]
) -> None:
    found, wanted = on_four[0]["dp2-pp2 bf16"], alone[0]["bf16"]
    for own, other in zip(found.reports, wanted.reports, strict=True):
        assert own.losses == pytest.approx(other.losses, rel=1e-2)
        assert own.grad_norm == pytest.approx(other.grad_norm, rel=2e-2)


def test_every_stage_tells_the_held_out_scores_of_one_process(
    alone: tuple[Found, list[Any]], on_four: tuple[Found, list[Any]]
) -> None:
    (wanted,), reports = alone[1], on_four[1]
    assert {"heldout", "twins"} == wanted.scores.keys() and wanted.scores["twins"]["num_pairs"] > 5
    for report in reports:
        assert report.retrieved == wanted.retrieved
        for name, scores in wanted.scores.items():
            assert report.scores[name] == pytest.approx(scores, rel=1e-4), name


def test_the_uneven_samples_lack_what_they_are_meant_to() -> None:
    batches = uneven_batches_of(0, plan_of(DP2_PP2), 2, 0) + uneven_batches_of(0, plan_of(DP2_PP2), 2, 1)
    whole = [int((batch.has_image_B & batch.has_text_B).sum()) for batch in batches]
    assert sorted(whole)[:4] == [0, 0, 0, 0] and max(whole) >= 3
    assert any(not batch.has_image_B.any() and batch.has_text_B.any() for batch in batches)
    assert any(not batch.has_text_B.any() and batch.has_image_B.any() for batch in batches)
    assert any(batch.has_text_B.all() and (batch.masked_labels_BT < 0).all() for batch in batches)


@pytest.mark.long
@pytest.mark.parametrize("shares_tokens", [False, True])
def test_eight_ranks_along_three_axes_compute_what_one_process_computes(
    shares_tokens: bool, alone: tuple[Found, list[Any]]
) -> None:
    ranks = Ranks(dp=2, tp=2, pp=2, shares_tokens=shares_tokens)
    runs = {gather: run_of(ranks, gather, "global_batch") for gather in ("per_use", "per_step")}
    for found in train_on(8, runs).values():
        assert_near(distance(found, alone[0]["global_batch"], HEAD_SIZE))


@pytest.mark.long
def test_four_stages_compute_what_one_process_computes(alone: tuple[Found, list[Any]]) -> None:
    ranks = Ranks(pp=4)
    runs = {"even": run_of(ranks), "by hand": run_of(ranks, parallel={"stage_layers": (1, 1, 3, 1)})}
    for found in train_on(4, runs).values():
        assert_near(distance(found, alone[0]["micro_batch"], HEAD_SIZE))
