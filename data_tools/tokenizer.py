"""`mmdata tokenizer`: trains the sentencepiece model that a run reads its captions and questions with."""

import io
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import sentencepiece
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2

from data_tools.answers import asked_in, texts_of
from mmtrain.data.index import DataError, open_index, read_part
from mmtrain.data.tokenizer import SPECIAL_PIECES, Tokenizer
from mmtrain.io.atomic import atomic_write

MAX_CAPTION_BYTES = 1 << 20  # far above any caption: sentencepiece would drop longer ones in silence
NORMALIZATION = "nmt_nfkc_cf"  # NFKC, spaces made one, lower case
SPACE = "\u2581"  # sentencepiece's mark of the space before a word
MAX_SEED_WORDS = 50_000  # the most frequent ones; what is rarer gets no piece anyway
MAX_PIECE_LENGTH = 16  # characters
CHARACTER_COVERAGE = 0.9999  # of all characters written; rarer ones are [UNK]


def train_tokenizer(captions: Sequence[str], out: Path, vocab_size: int) -> Tokenizer:
    """Train a unigram model on the captions and write it to `out`: the same captions give the same bytes.

    Text is normalized and lower-cased (nmt_nfkc_cf). The model may have fewer pieces than `vocab_size` where the
    captions offer no more. DataError where `vocab_size` cannot hold the special pieces and the characters.
    """
    model = io.BytesIO()
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".tsv", encoding="utf-8") as seeds:
            seeds.writelines(f"{piece}\t{score}\n" for piece, score in seed_pieces(captions))
            seeds.flush()
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(captions),
                model_writer=model,
                seed_sentencepieces_file=seeds.name,
                vocab_size=vocab_size,
                **_settings(),
            )
    except RuntimeError as error:
        raise DataError(_plain(str(error), vocab_size)) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, _without_paths(model.getvalue()))
    return Tokenizer(out)


def is_tokenizer(path: Path) -> bool:
    """Whether a file is a sentencepiece model."""
    try:
        return bool(sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes()).pieces)
    except (OSError, DecodeError):
        return False


def seed_pieces(captions: Sequence[str]) -> list[tuple[str, int]]:
    """The pieces that training starts from, with their scores: every part of every word, by how often it is written.

    sentencepiece's own seeds are parts that several different words share. In a small vocabulary no whole word is
    among those, and captions come out in crumbs.
    """
    normalizer = sentencepiece.SentencePieceNormalizer(rule_name=NORMALIZATION)
    words: Counter[str] = Counter()
    for caption in captions:
        words.update(normalizer.Normalize(caption).replace(SPACE, " ").split())
    counts: Counter[str] = Counter()
    for word, count in words.most_common(MAX_SEED_WORDS):
        marked = SPACE + word
        for start in range(len(marked)):
            for end in range(start + 2, min(start + MAX_PIECE_LENGTH, len(marked)) + 1):
                counts[marked[start:end]] += count
    return [(piece, count * len(piece)) for piece, count in counts.most_common()]


def _plain(error: str, vocab_size: int) -> str:
    """sentencepiece's complaint in the words of our options."""
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", error):
        needed = int(found[1])
        return f"--vocab-size is {vocab_size}, but special pieces and single characters alone are {needed}; raise it"
    return f"no tokenizer of --vocab-size {vocab_size} can be trained on these captions: {error.rpartition('] ')[2]}"


def _without_paths(serialized: bytes) -> bytes:
    """The model without the name of the temporary file, so that two trainings give the same bytes."""
    model = sentencepiece_model_pb2.ModelProto.FromString(serialized)
    model.trainer_spec.ClearField("seed_sentencepieces_file")
    return model.SerializeToString(deterministic=True)


def _settings() -> dict[str, object]:
    pad, unk, cls, sep, *control = SPECIAL_PIECES
    return {
        "model_type": "unigram",
        "hard_vocab_limit": False,
        "byte_fallback": False,
        "normalization_rule_name": NORMALIZATION,
        "character_coverage": CHARACTER_COVERAGE,
        "max_sentence_length": MAX_CAPTION_BYTES,
        "max_sentencepiece_length": MAX_PIECE_LENGTH,
        "pad_id": 0,
        "unk_id": 1,
        "bos_id": 2,
        "eos_id": 3,
        "pad_piece": pad,
        "unk_piece": unk,
        "bos_piece": cls,
        "eos_piece": sep,
        "control_symbols": control,
        "num_threads": 1,  # sums of floats from several threads come in any order: not the same bytes twice
        "minloglevel": 2,
    }


def read_texts(shards: Sequence[Path]) -> Iterator[str]:
    """What is written in the shards, sample by sample: the caption, then questions and answers where there are any."""
    for shard in shards:
        for parts in open_index(shard).parts:
            found = [read_part(shard, parts["txt"]).decode("utf-8", "replace")] if "txt" in parts else []
            if "json" in parts:
                asked = asked_in(read_part(shard, parts["json"]))
                found += [text for question in asked for text in texts_of(question)]
            yield from filter(None, map(str.strip, found))
