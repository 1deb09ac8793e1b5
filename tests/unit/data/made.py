"""Shards made by hand for the tests: whole ones, foreign ones and damaged ones."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sentencepiece
from PIL import Image

from mmtrain.config.schema import DataConfig, MlmConfig, ModelConfig, TrainConfig
from mmtrain.data.questions import Asking
from mmtrain.data.stream import Stream

COLORS = ("red", "green", "blue", "white")
SIZE = 16  # pixels


def caption_of(number: int) -> str:
    """A caption that names its number in words that the tokenizer knows."""
    digits = " ".join(COLORS[int(digit)] for digit in np.base_repr(number, 4))
    return f"a picture of {digits}"


def picture(number: int, size: tuple[int, int] = (SIZE, SIZE), kind: str = "JPEG") -> bytes:
    """An image file of noise that belongs to `number`."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def files_of(number: int) -> dict[str, bytes]:
    """The files of one good sample."""
    return {"jpg": picture(number), "txt": caption_of(number).encode(), "json": json.dumps({"n": number}).encode()}


def write_tar(path: Path, samples: dict[str, dict[str, bytes]], kind: int = tarfile.USTAR_FORMAT) -> Path:
    """A tar of samples by key, each with its files by extension."""
    with tarfile.open(path, "w", format=kind) as tar:
        for key, files in samples.items():
            for extension, content in files.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def write_set(
    folder: Path, num_samples: int, spoilt: dict[int, dict[str, bytes]] | None = None, shard: int = 40
) -> Path:
    """A folder of shards; the samples whose number is in `spoilt` have those files instead of good ones."""
    folder.mkdir(parents=True)
    for start in range(0, num_samples, shard):
        numbers = range(start, min(start + shard, num_samples))
        samples = {f"k{number:05d}": (spoilt or {}).get(number, files_of(number)) for number in numbers}
        write_tar(folder / f"set-{start // shard:06d}.tar", samples)
    return folder


def train_tokenizer(path: Path, texts: Sequence[str], **changes: object) -> Path:
    """A sentencepiece model at `path` with the special pieces that the house wants, or with `changes`."""
    settings = {
        "vocab_size": 60,
        "hard_vocab_limit": False,
        "minloglevel": 2,
        "pad_id": 0,
        "unk_id": 1,
        "bos_id": 2,
        "eos_id": 3,
        "pad_piece": "[PAD]",
        "unk_piece": "[UNK]",
        "bos_piece": "[CLS]",
        "eos_piece": "[SEP]",
        "control_symbols": ["[MASK]"],
    }
    model = io.BytesIO()
    trainer = sentencepiece.SentencePieceTrainer
    trainer.Train(sentence_iterator=iter(texts), model_writer=model, **(settings | changes))
    path.write_bytes(model.getvalue())
    return path


MODEL = ModelConfig(image_size=SIZE, patch_size=8, max_text_length=20)


def open_stream(
    train: object,
    tokenizer: Path,
    *,
    dp: int = 1,
    dp_rank: int = 0,
    seed: int = 3,
    trim: bool = True,
    needs_images: bool = True,
    prompt: str = "",
    asking: Asking | None = None,
    **data: object,
) -> Stream:
    """A stream over a folder, a URL or the sets of a blend, with global batches of 16 in micro-batches of 4."""
    train = str(train) if isinstance(train, Path) else train
    config = DataConfig(train=train, tokenizer=tokenizer, **({"num_workers": 0} | data))
    sizes = TrainConfig(global_batch_size=16, micro_batch_size=4)
    ranks = {"dp": dp, "dp_rank": dp_rank}
    how = {"trim": trim, "needs_images": needs_images, "prompt": prompt, "asking": asking}
    return Stream(config, MODEL, sizes, MlmConfig(), seed=seed, **how, **ranks)
