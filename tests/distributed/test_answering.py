"""Questions are answered alike in any layout, and as the twin answers them: written, ranked, chosen."""

from typing import Any

import pytest
import torch

from mmtrain.config.schema import ItcConfig
from mmtrain.hf.generating import generation_config_of
from tests.comparison import put_together
from tests.distributed.written import NUM_ANSWERS, NUM_SAMPLES, Pieces, answered_on_a_rank, asked_batches, asked_plan
from tests.helpers import VOCAB_SIZE, run_ranks

LAYOUTS = {"dp2": (2, 1, 1), "tp2": (2, 2, 1), "pp2": (2, 1, 2)}  # ranks, tp, pp


@pytest.fixture(scope="module")
def alone() -> tuple[dict[str, list[str]], list[Any]]:
    return run_ranks(1, answered_on_a_rank, 1, 1)[0]


def twin_of(weights: list[Any], *, chooses: bool) -> Any:
    from mmtrain.config.shapes import padded_vocab_size
    from mmtrain.hf import VLBertConfig, VLBertForVisualQuestionAnswering
    from mmtrain.hf.names import in_twin

    answers = [str(number) for number in range(NUM_ANSWERS)] if chooses else None
    sizes = {"vocab_size": padded_vocab_size(VOCAB_SIZE), "num_pieces": VOCAB_SIZE}
    config = VLBertConfig.of(asked_plan(1, 1, "choose").model, ItcConfig(), answers=answers, **sizes)
    twin = VLBertForVisualQuestionAnswering(config).eval()
    named = {in_twin(name): torch.from_numpy(tensor) for name, tensor in put_together([weights]).items()}
    missing, _ = twin.load_state_dict(named, strict=False)
    assert missing == []
    return twin


def questions() -> list[tuple[int, torch.Tensor, list[int], int]]:
    """Place, pixels, the whole text and the length of its question, of each sample with an image and a text."""
    found = []
    for batch in asked_batches(1, 0):
        for row in (batch.has_image_B & batch.has_text_B).nonzero().flatten().tolist():
            pixels_1CHW = (batch.images_BCHW[row : row + 1].float() - 127.5) / 127.5
            ids = batch.text_ids_BT[row, : batch.text_lengths_B[row]].tolist()
            found.append((int(batch.places_B[row]), pixels_1CHW, ids, int(batch.prompt_lengths_B[row])))
    return found


@torch.no_grad()
def test_the_ranked_answer_is_the_likeliest_of_the_shortlist_by_the_twins_logits(alone: Any) -> None:
    twin, answers = twin_of(alone[1], chooses=False), [Pieces().encode(str(n), 9)[1:] for n in range(NUM_ANSWERS)]
    for place, pixels, ids, length in questions():
        scores = []
        for tokens in answers:
            text = torch.tensor([[*ids[:length], *tokens]])
            log_probs_TV = twin(text, pixels, prefix_length=length).logits[0].log_softmax(dim=-1)
            asked = [float(log_probs_TV[length - 1 + step, token]) for step, token in enumerate(tokens)]
            scores.append((sum(asked), asked[0]))
        first = sorted(range(NUM_ANSWERS), key=lambda number: -scores[number][1])[:3]
        best = max(first, key=lambda number: scores[number][0])
        assert alone[0]["rank"][place] == str(best)


def test_the_written_answer_is_the_twins(alone: Any) -> None:
    twin = twin_of(alone[1], chooses=False)
    twin.generation_config = generation_config_of(twin.config, range(5))
    for place, pixels, ids, length in questions():
        asked = torch.tensor([ids[:length]])
        written = twin.generate(pixel_values=pixels, input_ids=asked, prefix_length=length, max_new_tokens=4)
        said = [token for token in written[0, length:].tolist() if token not in (Pieces.sep_id, Pieces.pad_id)]
        assert alone[0]["write"][place] == Pieces().decode(said)


@torch.no_grad()
def test_the_chosen_answer_is_that_of_the_twins_head(alone: Any) -> None:
    twin = twin_of(alone[1], chooses=True)
    for place, pixels, ids, _ in questions():
        logits_1A = twin(torch.tensor([ids]), pixels).logits
        assert alone[0]["choose"][place] == str(int(logits_1A.argmax()))


@pytest.mark.parametrize("layout", [pytest.param("dp2", marks=pytest.mark.long), "tp2", "pp2"])
def test_questions_are_answered_alike_on_any_layout(layout: str, alone: Any) -> None:
    num_ranks, tp, pp = LAYOUTS[layout]
    for found, _ in run_ranks(num_ranks, answered_on_a_rank, tp, pp):
        assert found == alone[0]
    assert all(len(answers) == NUM_SAMPLES and len(set(answers)) > 1 for answers in alone[0].values())
