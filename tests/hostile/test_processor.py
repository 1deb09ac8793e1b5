"""Odd arguments of the processor and of the models: what Hugging Face users expect, or one clear ValueError."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmtrain.hf import (
    VLBertConfig,
    VLBertForImageCaptioning,
    VLBertForImageTextRetrieval,
    VLBertForVisualQuestionAnswering,
    VLBertProcessor,
)
from mmtrain.hf.generating import generation_config_of
from mmtrain.hf.processing import processor_of
from tests.unit.data.made import caption_of, train_tokenizer
from tests.unit.hf.built import built, config_of

SIDE = 16  # pixels, of the model
ARRAY = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
PICTURE = Image.fromarray(ARRAY)
TENSOR = torch.from_numpy(ARRAY).permute(2, 0, 1)


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> VLBertProcessor:
    captions = [caption_of(number) for number in range(200)]
    return processor_of(train_tokenizer(tmp_path_factory.mktemp("t") / "t.model", captions), config_of())


@pytest.fixture(scope="module")
def models(processor: VLBertProcessor) -> dict[str, Any]:
    answers = VLBertConfig(**{**config_of().to_dict(), "answers": ["yes", "no", "red"]})
    found = {
        "captioner": built(VLBertForImageCaptioning),
        "writer": built(VLBertForVisualQuestionAnswering),
        "chooser": VLBertForVisualQuestionAnswering(answers).eval(),
        "finder": built(VLBertForImageTextRetrieval),
    }
    for model in found.values():
        model.config.num_pieces, model.config.answer_tokens = len(processor.tokenizer), 4
        model.processor, model.generation_config = processor, generation_config_of(model.config, range(5))
    return found


def iterator() -> Any:
    yield PICTURE
    yield PICTURE


TAKEN = {  # images -> how many they are
    "a picture": (lambda: PICTURE, 1),
    "a list": (lambda: [PICTURE, ARRAY, TENSOR], 3),
    "a tuple": (lambda: (PICTURE, PICTURE), 2),
    "a generator": (iterator, 2),
    "an array": (lambda: ARRAY, 1),
    "an array that is read-only": (lambda: np.asarray(PICTURE), 1),
    "an array that is a view": (lambda: ARRAY[::-1][::-1], 1),
    "a batch of arrays": (lambda: np.stack([ARRAY] * 3), 3),
    "a batch of three arrays 3 wide": (lambda: np.zeros((3, 5, 3, 3), np.uint8), 3),
    "a tensor": (lambda: TENSOR, 1),
    "a batch of tensors": (lambda: torch.stack([TENSOR] * 3), 3),
    "a batch of one tensor": (lambda: TENSOR[None], 1),
    "a grey picture": (lambda: PICTURE.convert("L"), 1),
}
REFUSED = {  # images -> what is said
    "nothing": ([], "no images are given"),
    "no arrays": (np.zeros((0, 8, 8, 3), np.uint8), "no images are given"),
    "no tensors": (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), "no images are given"),
    "an empty array": (np.zeros((0, 0, 3), np.uint8), r"array \(0, 0, 3\) of uint8; wanted a PIL picture"),
    "a grey array": (ARRAY[:, :, 0], r"array \(24, 20\) of uint8; wanted"),
    "channels first": (np.ascontiguousarray(ARRAY.transpose(2, 0, 1)), r"array \(3, 24, 20\) of uint8; wanted"),
    "channels last": (torch.from_numpy(ARRAY), r"tensor \(24, 20, 3\) of torch.uint8; wanted"),
    "four channels": (np.zeros((8, 8, 4), np.uint8), r"array \(8, 8, 4\)"),
    "floats": (ARRAY.astype(np.float32) / 255, "of float32; wanted"),
    "tensors of floats": (TENSOR.float(), "of torch.float32; wanted"),
    "wide integers": (ARRAY.astype(np.int64), "of int64; wanted"),
    "booleans": (ARRAY > 9, "of bool; wanted"),
    "five dimensions": (np.zeros((1, 1, 8, 8, 3), np.uint8), r"array \(1, 1, 8, 8, 3\) of uint8"),
    "a number": (7, "images are a int; wanted"),
    "bytes": (b"\xff\xd8\xff", "images are a bytes; wanted"),
    "a dict": ({"image": PICTURE}, "images are a dict; wanted"),
    "lists of lists": ([[PICTURE]], "an image is a list; wanted"),
    "None among them": ([PICTURE, None], "an image is a NoneType; wanted"),
    "a missing path": ("no/such.jpg", r"no/such.jpg: file cannot be read \(No such file"),
    "a folder": (Path(__file__).parent, "file cannot be read"),
    "a file that is no image": (__file__, "test_processor.py: not a JPEG"),
    "an address": ("https://example.com/a.jpg", "a.jpg: file cannot be read"),
    "a long name": ("a" * 5000, "file cannot be read"),
    "a name with a zero": ("a\0b", "file cannot be read"),
    "an empty name": ("", "file cannot be read"),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_pictures_of_every_kind_are_taken(kind: str, processor: VLBertProcessor) -> None:
    images, number = TAKEN[kind][0](), TAKEN[kind][1]
    pixels = processor(images=images)["pixel_values"]
    assert pixels.shape == (number, 3, SIDE, SIDE) and pixels.dtype == torch.float32
    if "wide" not in kind and "grey" not in kind:
        assert all(torch.equal(one, processor(images=PICTURE)["pixel_values"][0]) for one in pixels)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_picture_is_refused_in_a_sentence(kind: str, processor: VLBertProcessor) -> None:
    images, words = REFUSED[kind]
    with pytest.raises(ValueError, match=words) as caught:
        processor(images=images)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_paths_are_read_as_files_of_shards_are(processor: VLBertProcessor, tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "a.png")
    wanted = processor(images=PICTURE)["pixel_values"]
    for images in (tmp_path / "a.png", str(tmp_path / "a.png"), [str(tmp_path / "a.png")]):
        assert torch.equal(processor(images=images)["pixel_values"], wanted)


@pytest.mark.parametrize("wanted", ["pt", "np", None])
def test_tensors_come_back_in_the_kind_that_is_asked_for(wanted: str | None, processor: VLBertProcessor) -> None:
    found = processor(images=[PICTURE, PICTURE], text=["red", "a picture of red"], return_tensors=wanted)
    kind = {"pt": torch.Tensor, "np": np.ndarray, None: list}[wanted]
    assert all(isinstance(found[name], kind) for name in ("pixel_values", "input_ids", "attention_mask"))
    assert np.array_equal(
        np.stack(list(map(np.asarray, found["pixel_values"]))), processor(images=[PICTURE] * 2)["pixel_values"]
    )
    assert np.array_equal(np.asarray(found["input_ids"]), processor(text=["red", "a picture of red"])["input_ids"])


@pytest.mark.parametrize("wanted", ["tf", "jax", "PT", 7])
def test_other_kinds_of_tensors_are_refused(wanted: object, processor: VLBertProcessor) -> None:
    with pytest.raises(ValueError, match="return_tensors is .*; wanted one of"):
        processor(images=PICTURE, return_tensors=wanted)


NO_TEXTS = ([], [None], [["a"]], [b"a"], None, b"a", 7, {"a": 1}, "\ud83d", ["a", "x\udc00"])
SAID = "no texts are given|text is .*; wanted a string|nothing is given|holds a lone surrogate"


@pytest.mark.parametrize("texts", NO_TEXTS, ids=ascii)
def test_what_is_no_text_is_refused(texts: Any, processor: VLBertProcessor) -> None:
    with pytest.raises(ValueError, match=SAID):
        processor(text=texts)


RAW = {  # tensors that no processor has made
    "bytes": torch.stack([TENSOR, TENSOR]),
    "bytes at the model's size": torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8),
    "whole numbers": torch.ones(2, 3, SIDE, SIDE, dtype=torch.int64),
    "booleans": torch.ones(2, 3, SIDE, SIDE, dtype=torch.bool),
    "floats up to 255": torch.full((2, 3, SIDE, SIDE), 255.0),
    "no numbers": torch.full((2, 3, SIDE, SIDE), torch.nan),
    "one that is no number": torch.zeros(2, 3, SIDE, SIDE).index_fill(3, torch.tensor([5]), torch.nan),
    "infinities": torch.full((2, 3, SIDE, SIDE), -torch.inf),
    "complex numbers": torch.zeros(2, 3, SIDE, SIDE, dtype=torch.complex64),
    "a sparse tensor": torch.zeros(2, 3, SIDE, SIDE).to_sparse(),
}


@pytest.mark.parametrize("kind", RAW)
@pytest.mark.parametrize("name", ["captioner", "writer", "chooser", "finder"])
def test_raw_pixels_are_no_pixel_values(name: str, kind: str, models: dict[str, Any]) -> None:
    model, raw = models[name], RAW[kind]
    with pytest.raises(ValueError, match="pixel_values are .*wanted"):
        {
            "captioner": lambda: model.generate(raw),
            "writer": lambda: model.answer(raw, "red"),
            "chooser": lambda: model.answer(raw, "red"),
            "finder": lambda: model.retrieve("red", raw),
        }[name]()
    if not raw.is_floating_point() and raw.shape[-1] == SIDE:
        with pytest.raises(ValueError, match="pixel_values are torch"):
            model(torch.full((2, 4), 5), raw)


MISFITS = {  # what is called -> what is said
    "more texts than pictures": (lambda m: m["captioner"].generate([PICTURE] * 2, ["a"] * 3), "3 texts for 2 images"),
    "fewer texts than pictures": (lambda m: m["captioner"].generate([PICTURE] * 3, ["a"] * 2), "2 texts for 3 images"),
    "two texts for a picture": (lambda m: m["captioner"].generate(PICTURE, ["a"] * 2), "2 texts for 1 images"),
    "no texts": (lambda m: m["captioner"].generate([PICTURE] * 2, []), "no texts are given"),
    "no pictures to caption": (lambda m: m["captioner"].generate([]), "no images are given"),
    "a dictionary of strings": (
        lambda m: m["captioner"].generate(PICTURE, return_dict_in_generate=True), "return_dict_in_generate is for"),
    "a dictionary of answers": (
        lambda m: m["writer"].answer(PICTURE, "red", return_dict_in_generate=True), "return_dict_in_generate is for"),
    "two questions about a picture": (lambda m: m["writer"].answer(PICTURE, ["red"] * 2), "2 texts for 1 images"),
    "two questions to choose for": (lambda m: m["chooser"].answer(PICTURE, ["red"] * 2), "2 texts for 1 images"),
    "no tensors to caption": (lambda m: m["captioner"].generate(torch.zeros(0, 3, SIDE, SIDE)), "no images are given"),
    "no question to write on": (lambda m: m["writer"].answer(PICTURE, None), "text is a NoneType; wanted"),
    "no question to choose for": (lambda m: m["chooser"].answer(PICTURE, None), "text is a NoneType; wanted"),
    "half an emoji": (lambda m: m["writer"].answer(PICTURE, "what \ud83d"), "holds a lone surrogate"),
    "no questions": (lambda m: m["writer"].answer([PICTURE] * 2, []), "no texts are given"),
    "no questions to choose for": (lambda m: m["chooser"].answer([PICTURE] * 2, []), "no texts are given"),
    "questions without pictures": (lambda m: m["writer"].generate(None, "red"), "nothing to ask about"),
    "no pictures to choose for": (lambda m: m["chooser"].answer([], "red"), "no images are given"),
    "a question that is a number": (lambda m: m["chooser"].answer([PICTURE] * 2, [1, 2]), "a text is 1; wanted"),
    "top_k below 1": (lambda m: m["finder"].retrieve("red", [PICTURE], top_k=-1), "top_k is -1; wanted"),
    "top_k of 0": (lambda m: m["finder"].retrieve("red", [PICTURE], top_k=0), "top_k is 0; wanted"),
    "top_k of a half": (lambda m: m["finder"].retrieve("red", [PICTURE], top_k=0.5), "top_k is 0.5; wanted"),
    "shortlist of 0": (lambda m: m["finder"].retrieve("red", [PICTURE], shortlist=0), "shortlist is 0; wanted"),
    "nothing to look among": (lambda m: m["finder"].retrieve("red", []), "no images are given"),
    "texts to look for": (lambda m: m["finder"].retrieve(["red"], [PICTURE]), "text is a list; wanted one string"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISFITS)
def test_numbers_that_do_not_fit_are_said(kind: str, models: dict[str, Any]) -> None:
    call, words = MISFITS[kind]
    with pytest.raises(ValueError, match=re.escape(words)):
        call(models)


def test_one_picture_gives_a_string_and_several_a_list(models: dict[str, Any], tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "a.png")
    one = models["captioner"].generate(PICTURE, max_length=8)
    assert isinstance(one, str)
    for images in (ARRAY, str(tmp_path / "a.png")):
        assert models["captioner"].generate(images, max_length=8) == one
    for images in ([PICTURE], np.stack([ARRAY]), iter([PICTURE])):
        assert models["captioner"].generate(images, max_length=8) == [one]
    assert models["chooser"].answer([PICTURE] * 2, ["red"]) == [models["chooser"].answer(PICTURE, "red")] * 2
    pixels = models["writer"].processor(images=PICTURE)["pixel_values"]
    assert models["writer"].generate(pixel_values=pixels, text="red") == [models["writer"].answer(PICTURE, "red")]


def test_tensors_give_the_dictionary_that_is_asked_for(models: dict[str, Any]) -> None:
    pixels = models["captioner"].processor(images=PICTURE)["pixel_values"]
    assert models["captioner"].generate(pixels, max_length=6, return_dict_in_generate=True).sequences.shape[0] == 1
