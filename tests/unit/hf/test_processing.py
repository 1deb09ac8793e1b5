"""Pictures and words become what a run makes of them, and saved models come back to the bit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmtrain.data.augment import fit
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.hf import (
    VLBertForImageCaptioning,
    VLBertForImageTextRetrieval,
    VLBertImageProcessor,
    VLBertModel,
    VLBertProcessor,
)
from mmtrain.hf.generating import generation_config_of
from mmtrain.hf.processing import processor_of
from tests.unit.data.made import caption_of, train_tokenizer
from tests.unit.hf.built import built, config_of, pixels, texts

SIZES = [(16, 16), (40, 31), (31, 40), (17, 200), (300, 20), (9, 11), (16, 33)]


@pytest.fixture(scope="module")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    captions = [caption_of(number) for number in range(200)]
    return train_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.model", captions)


@pytest.fixture(scope="module")
def processor(tokenizer_path: Path) -> VLBertProcessor:
    return processor_of(tokenizer_path, config_of())


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_picture_is_seen_as_in_training(size: tuple[int, int]) -> None:
    array = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    seen = VLBertImageProcessor(image_size=16)(Image.fromarray(array))["pixel_values"]
    wanted = fit(torch.from_numpy(array).permute(2, 0, 1), (16, 16))
    assert torch.equal(seen[0], (wanted.float() - 127.5) / 127.5)


def test_turned_and_transparent_pictures_are_seen_upright_and_on_white() -> None:
    array = np.zeros((8, 4, 3), np.uint8)
    array[:4] = 255
    picture = Image.fromarray(array)
    turned = Image.fromarray(array)
    turned.getexif()[0x0112] = 6  # lies on its side
    processor = VLBertImageProcessor(image_size=4)
    assert not torch.equal(processor(turned)["pixel_values"], processor(picture)["pixel_values"])
    clear = Image.new("RGBA", (6, 6), (0, 0, 0, 0))
    assert processor(clear)["pixel_values"].min() == 1.0
    assert processor(Image.new("L", (9, 5), 255))["pixel_values"].shape == (1, 3, 4, 4)
    with pytest.raises(ValueError, match="wanted a PIL picture"):
        processor(torch.zeros(3, 5, 5))


def test_words_get_the_ids_of_the_run(processor: VLBertProcessor, tokenizer_path: Path) -> None:
    own = Tokenizer(tokenizer_path)
    captions = [caption_of(number) for number in range(30)] + ["", "  an Unknown   wörd ", "a picture of red " * 9]
    ids = processor(text=captions)
    for row, mask, caption in zip(ids["input_ids"], ids["attention_mask"], captions, strict=True):
        wanted = own.encode(caption, config_of().max_text_length)
        assert row[: int(mask.sum())].tolist() == wanted
        if Tokenizer.unk_id not in wanted:  # of an unknown piece the run's own decoder leaves a mark
            assert processor.decode(row, skip_special_tokens=True).strip() == own.decode(wanted).strip()


def test_beginnings_end_at_the_same_place(processor: VLBertProcessor) -> None:
    begun = processor.prompts(["a picture of red", "a"])
    assert begun["input_ids"].shape == begun["attention_mask"].shape
    assert begun["input_ids"][1, 0] == 0 and begun["attention_mask"][:, -1].tolist() == [1, 1]
    ended = processor.prompts(["a picture of red", "a"], ends=True)
    assert ended["input_ids"][:, -1].tolist() == [3, 3]


def test_what_is_saved_comes_back_to_the_bit_through_the_auto_classes(
    processor: VLBertProcessor, tmp_path: Path
) -> None:
    from transformers import AutoModel, AutoProcessor, AutoTokenizer

    model = built(VLBertForImageCaptioning)
    model.processor = processor
    model.save_pretrained(tmp_path)
    again = VLBertForImageCaptioning.from_pretrained(tmp_path).eval()
    ids, known = texts(4)
    assert torch.equal(model(ids, pixels(4), known).logits, again(ids, pixels(4), known).logits)
    base = AutoModel.from_pretrained(tmp_path).eval()
    assert isinstance(base, VLBertModel)
    both = [one(ids, pixels(4), known) for one in (model.vlbert, base)]
    for name in ("last_hidden_state", "image_embeds", "text_embeds"):
        assert torch.equal(both[0][name], both[1][name]), name
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, VLBertProcessor)
    picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (20, 30, 3), np.uint8))
    words = ["a picture of red blue", "a picture"]
    mine, theirs = (one(images=[picture, picture], text=words) for one in (processor, loaded))
    assert all(torch.equal(mine[name], theirs[name]) for name in ("pixel_values", "input_ids", "attention_mask"))
    assert AutoTokenizer.from_pretrained(tmp_path).decode(mine["input_ids"][1]) == processor.decode(
        mine["input_ids"][1]
    )
    assert isinstance(again.generate(picture, max_length=8), str)


def test_a_model_of_one_task_begins_with_the_weights_of_another(tmp_path: Path) -> None:
    model = built(VLBertForImageCaptioning)
    model.save_pretrained(tmp_path)
    retrieval = VLBertForImageTextRetrieval.from_pretrained(tmp_path)
    for name, param in model.vlbert.named_parameters():
        assert torch.equal(param, retrieval.vlbert.get_parameter(name)), name


def test_a_captioner_goes_on_from_the_prompt_it_was_trained_behind_and_leaves_it_out(
    processor: VLBertProcessor,
) -> None:
    model = built(VLBertForImageCaptioning)
    model.config.num_pieces, model.processor = len(processor.tokenizer), processor
    model.generation_config = generation_config_of(model.config, range(5))
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (16, 16, 3), np.uint8))
    whole = model.generate(picture, text="a red", max_length=9)
    model.own_prompt = "a red"
    assert f"a red {model.generate(picture, max_length=9)}".split() == whole.split()
