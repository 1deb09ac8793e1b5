"""Captions written in any layout are the twin's, and the re-ranked shortlist is the same everywhere."""

from typing import Any

import pytest
import torch

from mmtrain.config.schema import ItcConfig
from mmtrain.data.tokenizer import Tokenizer
from tests.comparison import put_together
from tests.distributed.written import NUM_SAMPLES, SHAPE, plan_of, written_on_a_rank
from tests.helpers import VOCAB_SIZE, made_batch, run_ranks

WAYS = [{"num_beams": 1}, {"num_beams": 3}, {"num_beams": 2, "no_repeat_ngram": 1, "length_penalty": 2.0}]
DRAWN = {"temperature": 0.7, "top_k": 9, "top_p": 0.9}
LAYOUTS = {"dp2": (2, 1, 1), "tp2": (2, 2, 1), "pp2": (2, 1, 2)}  # ranks, tp, pp


@pytest.fixture(scope="module")
def alone() -> tuple[list[Any], list[Any], dict[str, float]]:
    return run_ranks(1, written_on_a_rank, 1, 1, [*WAYS, DRAWN])[0]


@pytest.fixture(scope="module")
def twin(alone: tuple[list[Any], list[Any], dict[str, float]]) -> Any:
    """The twin of the model on one process."""
    from mmtrain.config.shapes import padded_vocab_size
    from mmtrain.hf import VLBertConfig, VLBertForImageCaptioning
    from mmtrain.hf.generating import generation_config_of
    from mmtrain.hf.names import in_twin

    config = VLBertConfig.of(
        plan_of(1, 1).model, ItcConfig(), vocab_size=padded_vocab_size(VOCAB_SIZE), num_pieces=VOCAB_SIZE
    )
    twin = VLBertForImageCaptioning(config).eval()
    weights = {in_twin(name): torch.from_numpy(tensor) for name, tensor in put_together([alone[1]]).items()}
    missing, _ = twin.load_state_dict(weights, strict=False)
    assert missing == []
    twin.generation_config = generation_config_of(config, range(5))
    return twin


def with_image() -> list[int]:
    return made_batch(range(NUM_SAMPLES), **SHAPE).has_image_B.nonzero().flatten().tolist()


@pytest.mark.parametrize("number", range(len(WAYS)))
def test_captions_are_those_of_the_twin(alone: Any, twin: Any, number: int) -> None:
    way, samples = WAYS[number], with_image()
    pixels = (made_batch(range(NUM_SAMPLES), **SHAPE).images_BCHW[samples].float() - 127.5) / 127.5
    ways = {"length_penalty": way.get("length_penalty", 1.0), "early_stopping": False} if way["num_beams"] > 1 else {}
    ids = twin.generate(
        pixel_values=pixels,
        num_beams=way["num_beams"],
        no_repeat_ngram_size=way.get("no_repeat_ngram", 0),
        max_length=SHAPE["max_text_length"],
        **ways,
    )
    silent = (Tokenizer.cls_id, Tokenizer.sep_id, Tokenizer.pad_id)
    wanted = [tuple(token for token in row if token not in silent) for row in ids.tolist()]
    assert [alone[0][number][sample] for sample in samples] == wanted
    assert len(set(wanted)) > 3, "captions hardly differ from image to image"


@pytest.mark.parametrize("layout", [pytest.param("dp2", marks=pytest.mark.long), "tp2", "pp2"])
def test_captions_and_reranked_recalls_are_the_same_on_any_layout(layout: str, alone: Any) -> None:
    num_ranks, tp, pp = LAYOUTS[layout]
    for captions, _, recalls in run_ranks(num_ranks, written_on_a_rank, tp, pp, [*WAYS, DRAWN]):
        assert captions == alone[0]
        assert recalls == alone[2]
    assert alone[0][0] != alone[0][-1], "the likeliest tokens were drawn"
    assert alone[2]["num_pairs_matched"] > NUM_SAMPLES
