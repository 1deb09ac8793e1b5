"""`mmdata tokenizer`: trains the sentencepiece model that a run reads its captions with."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import sentencepiece

from mmtrain.data.index import DataError, open_index, read_part, write_whole
from mmtrain.data.tokenizer import SPECIAL_PIECES, Tokenizer

MAX_CAPTION_BYTES = 1 << 20  # far above any caption: sentencepiece would drop longer ones in silence
CHARACTER_COVERAGE = 0.9999  # of all characters written; rarer ones are [UNK]


def train_tokenizer(captions: Sequence[str], out: Path, vocab_size: int) -> Tokenizer:
    """Train a unigram model on the captions and write it to `out`: the same captions give the same bytes.

    Text is normalized and lower-cased (nmt_nfkc_cf). The model may have fewer pieces than `vocab_size` where the
    captions offer no more. DataError where `vocab_size` cannot hold the special pieces and the characters.
    """
    pad, unk, cls, sep, *control = SPECIAL_PIECES
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(captions),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            byte_fallback=False,
            normalization_rule_name="nmt_nfkc_cf",
            character_coverage=CHARACTER_COVERAGE,
            max_sentence_length=MAX_CAPTION_BYTES,
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            pad_piece=pad,
            unk_piece=unk,
            bos_piece=cls,
            eos_piece=sep,
            control_symbols=control,
            num_threads=1,  # sums of floats from several threads come in any order: not the same bytes twice
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2].strip() or "no reason given"
        raise DataError(
            f"no tokenizer of --vocab-size {vocab_size} can be trained on these captions: {reason}"
        ) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, model.getvalue())
    return Tokenizer(out)


def read_captions(shards: Sequence[Path]) -> Iterator[str]:
    """The captions of the shards in order; samples without one are passed over."""
    for shard in shards:
        for parts in open_index(shard).parts:
            if "txt" in parts:
                caption = read_part(shard, parts["txt"]).decode("utf-8", "replace").strip()
                if caption:
                    yield caption
