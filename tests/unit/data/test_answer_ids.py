"""Ids of answers for public servers: one for each image or question, whatever repeats."""

import logging

import pytest

from mmtrain.data.answer_ids import Answered, choose_ids, image_ids, merged_rows, question_ids


def image(metadata: object, shard: str, key: str, sample: int, identity: int) -> Answered:
    return Answered(image_ids(metadata if isinstance(metadata, dict) else {}, shard, key, sample), identity)


def rows_of(answered: list[Answered], field: str = "image_id") -> list[dict]:
    ids = choose_ids(answered, field)
    return merged_rows(ids, [{"caption": str(number)} for number in range(len(ids))], field)


def test_numbers_of_coco_are_kept_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="mmtrain.data"):
        rows = rows_of([image({"coco_id": 40 + n}, "a.tar", f"k{n}", n, n) for n in range(4)])
    assert [row["image_id"] for row in rows] == [40, 41, 42, 43] and not caplog.messages


def test_five_captions_of_an_image_are_one_row(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="mmtrain.data"):
        rows = rows_of([image({"coco_id": n // 5}, "a.tar", f"k{n}", n, n // 5) for n in range(20)])
    assert [(row["image_id"], row["caption"]) for row in rows] == [(0, "0"), (1, "5"), (2, "10"), (3, "15")]
    assert caplog.messages == ["answers: 20 answers to 4 image_ids: the first of each is kept"]


def test_keys_that_repeat_are_told_apart_by_shard(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="mmtrain.data"):
        rows = rows_of([image({}, f"s{n // 4}.tar", f"k{n % 4}", n, n) for n in range(8)])
    assert [row["image_id"] for row in rows] == [f"s{n // 4}/k{n % 4}" for n in range(8)]
    assert any("in 8 of 8 the image_id" in line and "no submission" in line for line in caplog.messages)


def test_shards_of_one_name_are_told_apart_by_number() -> None:
    rows = rows_of([image({}, "a.tar", "k", n, n) for n in range(3)])
    assert [row["image_id"] for row in rows] == ["a/k#0", "a/k#1", "a/k#2"]


def test_a_number_that_stands_for_several_images_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    images = [image({"coco_id": 7 if n < 3 else n}, "a.tar", f"k{n}", n, n) for n in range(5)]
    with caplog.at_level(logging.WARNING, logger="mmtrain.data"):
        rows = rows_of(images)
    assert [row["image_id"] for row in rows] == ["k0", "k1", "k2", 3, 4]
    assert len(caplog.messages) == 2 and all("no submission" in line for line in caplog.messages)


@pytest.mark.parametrize("odd", [None, [], {}, 1.5, True, "", float("nan")], ids=str)
def test_odd_numbers_are_the_users_own_metadata(odd: object) -> None:
    assert image_ids({"coco_id": odd}, "a.tar", "k", 3) == ("k", "a/k", "a/k#3")


def test_questions_without_ids_are_told_apart_over_shards() -> None:
    asked = [Answered(question_ids(None, f"s{n // 4}.tar", "00000000", n % 4, n // 4), (n // 4, n)) for n in range(8)]
    ids = choose_ids(asked, "question_id")
    assert ids == [f"s{n // 4}/00000000-{n % 4}" for n in range(8)] and len(set(ids)) == 8


def test_a_key_that_reads_as_another_sample_s_qualified_one_is_resolved() -> None:
    images = [image({}, "s0.tar", "k", 0, 0), image({}, "s1.tar", "k", 1, 1), image({}, "s2.tar", "s0/k", 2, 2)]
    ids = choose_ids(images, "image_id")
    assert len(set(ids)) == 3
