"""A small good set and its tokenizer, made once."""

from pathlib import Path

import pytest

from tests.unit.data.made import caption_of, train_tokenizer, write_set


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    captions = [caption_of(number) for number in range(200)]
    return train_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.model", captions)


@pytest.fixture(scope="session")
def good_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("shards") / "train", 100)
