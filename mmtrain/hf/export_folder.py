"""Hugging Face folders that `mmtrain export` has written: each file is checked and named before a model is loaded."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from transformers import GenerationConfig
from transformers.utils import logging

from mmtrain.config.check import shape_faults
from mmtrain.config.section import first_fault
from mmtrain.hf.configuration import VLBertConfig
from mmtrain.hf.generating import WithProcessor
from mmtrain.hf.names import shapes
from mmtrain.hf.processing import PROCESSOR_FILE, VLBertProcessor
from mmtrain.hf.storage import TYPE_NAMES, WHOLE_FILE, read_weight_map, weight_file
from mmtrain.hf.tokenization import TOKENIZER_FILE, VLBertTokenizer
from mmtrain.io.documents import read_json_object
from mmtrain.io.errors import InputError
from mmtrain.io.file_kinds import describe_file
from mmtrain.io.text import printable
from mmtrain.io.utf8_paths import utf8_path

CONFIG, GENERATION, TOKENIZER_CONFIG = "config.json", "generation_config.json", "tokenizer_config.json"
FOLDER_TOKENIZER = "tokenizer.json"  # of a run whose tokenizer was another model's
MORE_JSON = ("special_tokens_map.json", "added_tokens.json", FOLDER_TOKENIZER)  # that there may be
MAX_JSON_BYTES = 64 << 20  # a tokenizer.json of a large vocabulary has some ten
MAX_SHOWN = 200  # characters of a library's own words in a message
Model = TypeVar("Model", bound=WithProcessor)
Result = TypeVar("Result")
Tensors = Mapping[str, tuple[Path, tuple[int, ...], str]]  # by name: file, shape, type in the words of safetensors


class ExportError(InputError):
    """A file of a model's folder is missing, damaged or another model's; the message names it."""


def load_export(folder: Path, kind: type[Model]) -> Model:
    """The model in `folder` with its processor, in eval mode; ExportError names the file that cannot be used."""
    config = read_config(folder)
    check_weights(folder, config)
    processor = load_processor(folder)
    num_pieces = len(processor.tokenizer)
    if num_pieces != config.num_pieces:
        raise ExportError(
            f"the tokenizer in {folder} has {num_pieces} pieces, but the model was trained with one of "
            f"{config.num_pieces}; bring back its own, or export it anew"
        )
    _check_generation(folder, config)
    with _no_progress_bar(), utf8_path(folder) as place:
        return kind.from_pretrained(place, use_safetensors=True).eval()


def read_config(folder: Path) -> VLBertConfig:
    """The shape of the model in `folder`; ExportError where config.json is none of ours."""
    file = folder / CONFIG
    kind = read_json(file).get("model_type")
    if kind != VLBertConfig.model_type:
        raise ExportError(f"{folder} is a model of type {kind!r}; wanted an export ({VLBertConfig.model_type})")
    config = parsed(file, lambda: VLBertConfig.from_pretrained(folder))
    if faults := shape_faults(parsed(file, lambda: config.plan)):
        raise ExportError(f"{file} cannot be used ({faults[0]})")
    return config


def check_weights(folder: Path, config: VLBertConfig) -> None:
    """ExportError where a weight of the model is missing, or of another shape or type."""
    found = tensors_in(folder)
    num_layers = sum(config.plan.model_dump()[f"{stack}_layers"] for stack in ("vision", "text", "fusion"))
    if num_layers > len(found):  # before anything is made of that size
        raise ExportError(f"{folder / CONFIG} wants {num_layers} layers, but the weights are {len(found)} tensors")
    for name, shape in parsed(folder / CONFIG, lambda: shapes(config)).items():
        if name not in found:
            raise ExportError(f"the weights in {folder} lack {name}; export the run anew")
        file, own, dtype = found[name]
        if own != shape:
            raise ExportError(f"{file} holds {name} of shape {list(own)}, but {CONFIG} wants {list(shape)}")
        if dtype not in TYPE_NAMES.values():
            raise ExportError(f"{file} holds {name} as {dtype}; wanted one of {', '.join(TYPE_NAMES.values())}")


def tensors_in(folder: Path) -> Tensors:
    """What the safetensors files of `folder` hold; ExportError where one is missing or damaged."""
    places = read_weight_map(folder)
    names = [WHOLE_FILE] if places is None else sorted(set(places.values()))
    found: dict[str, tuple[Path, tuple[int, ...], str]] = {}
    for file in (weight_file(folder, name) for name in names):
        check_file(file)
        try:
            with utf8_path(file) as path, safe_open(path, "pt") as weights:
                for name in weights.keys():  # noqa: SIM118 (no mapping)
                    part = weights.get_slice(name)
                    found[name] = file, tuple(part.get_shape()), part.get_dtype()
        except (SafetensorError, OSError, ValueError) as error:
            raise ExportError(f"{file} is damaged ({_shown(error)}); export the run anew, or fetch it again") from error
    return found


def load_processor(folder: Path) -> VLBertProcessor:
    """The processor in `folder`; ExportError names the file of it that cannot be used."""
    read_json(folder / PROCESSOR_FILE)
    file = tokenizer_file(folder)
    for name in MORE_JSON:
        if (folder / name).exists():
            read_json(folder / name)
    if file.name == TOKENIZER_FILE:
        parsed(file, lambda: VLBertTokenizer(str(file)))
    with utf8_path(folder) as place:
        read = partial(VLBertProcessor.from_pretrained, place)
        return parsed(folder / PROCESSOR_FILE, read, f" or {TOKENIZER_CONFIG}")


def tokenizer_file(folder: Path) -> Path:
    """The file of the tokenizer: of sentencepiece, or another model's. ExportError where it is missing or damaged."""
    kind = read_json(folder / TOKENIZER_CONFIG).get("tokenizer_class")
    file = folder / (TOKENIZER_FILE if kind == VLBertTokenizer.__name__ else FOLDER_TOKENIZER)
    check_file(file)
    return file


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; InputError where the file is missing, damaged or another thing."""
    check_file(file)
    return read_json_object(file, max_bytes=MAX_JSON_BYTES)


def check_file(file: Path) -> None:
    """ExportError where a file is missing or no file, is empty, a git-lfs pointer or another foreign thing."""
    if not file.exists():
        raise ExportError(f"{file} is missing; export the run anew, or fetch the whole folder")
    if not file.is_file():
        raise ExportError(f"{file} is no regular file")
    if kind := describe_file(file):
        raise ExportError(f"{file} is {kind}")


def _check_generation(folder: Path, config: VLBertConfig) -> None:
    file = folder / GENERATION
    read_json(file)
    said = parsed(file, lambda: GenerationConfig.from_pretrained(folder))
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if getattr(said, name) != getattr(config, name):
            raise ExportError(f"{file} has {name} {getattr(said, name)}, but {CONFIG} {getattr(config, name)}")
    silent = said.suppress_tokens or []
    if not all(isinstance(piece, int) and 0 <= piece < config.vocab_size for piece in silent):
        raise ExportError(f"{file} has suppress_tokens that are no ids of the model's vocabulary")


def parsed(file: Path, parse: Callable[[], Result], more: str = "") -> Result:
    """What a library makes of a file; ExportError names the file, for libraries raise nearly anything."""
    try:
        return parse()
    except InputError:
        raise
    except Exception as error:
        reason = first_fault(error) or f"{type(error).__name__}: {_shown(error)}"
        raise ExportError(f"{file}{more} cannot be used ({reason})") from error


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """transformers shows one for each model, also where standard error is a file."""
    shows = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shows:
            logging.enable_progress_bar()


def _shown(error: Exception) -> str:
    return printable(" ".join(str(error).split()))[:MAX_SHOWN]
