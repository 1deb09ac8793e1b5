"""Runs, exports, checkpoints and configs of strangers: nothing in them is executed, and nothing outside is touched.

What is planted would make `marker` or change `victim`; every case ends with the right result or in one sentence.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmtrain.config.bounded_yaml import MAX_NODES, YamlError, parse_yaml
from mmtrain.io.documents import DocumentError, read_json_object
from tests.hostile.conftest import Ended, Tiny
from tests.hostile.strangers import change_index, checkpoint_of, pickled, say_of_data, seal, torch_file

Command = Callable[..., Ended]
SECRET = "nobody reads this"


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that is never made."""
    return tmp_path / "marker"


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """A command that is refused ends with its process; here the groups that it has joined are left after it."""
    yield
    import torch.distributed as dist

    from mmtrain.parallel.groups import stop

    if dist.is_initialized():
        stop()


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file outside every run, that nobody reads or changes."""
    path = tmp_path / "victim.txt"
    path.write_text(f"{SECRET}\nno line's end")
    return path


def refused(ended: Ended, *fragments: str) -> None:
    """Exit code 2 and one message without a secret; its first line, or the only one in its list, is the sentence."""
    lines = [line for line in ended.err.rstrip("\n").split("\n") if not line.startswith("data.")]  # what is read
    assert ended.code == 2 and len(lines) <= 2, (ended.code, ended.err)
    assert all(fragment in ended.err for fragment in fragments), ended.err
    assert SECRET not in ended.err + ended.out


def words_of(verb: str, place: Path, tiny: Tiny, tmp_path: Path) -> list[object]:
    """A command that reads the run or export at `place`."""
    return {
        "evaluate": [place],
        "finetune": [
            "--task",
            "caption",
            f"model.init_from={place}",
            f"run_dir={tmp_path}/own",
            "--config",
            tiny.config,
        ],
        "generate": [place, tiny.pictures / "0.jpg"],
        "search": [place, "red", "--images", tiny.pictures],
        "reshard": [place],
        "export": [place, "--out", tmp_path / "out"],
    }[verb]


def own_data(verb: str, tiny: Tiny) -> list[str]:
    """What fine-tuning from an export needs beside it."""
    return [f"data.train={tiny.train}", f"data.heldout={tiny.heldout}"] if verb == "finetune" else []


READERS = ["evaluate", "finetune", "generate", "search", "reshard", "export"]


# Pickles.


@pytest.mark.parametrize("verb", READERS)
def test_an_index_that_is_a_pickle_is_not_loaded(verb, tiny, tiny_run, tmp_path, command: Command, marker) -> None:
    folder = checkpoint_of(tiny_run)
    (folder / "tensors" / "index.json").write_bytes(pickled(marker))
    seal(folder)
    refused(command("mmtrain", verb, *words_of(verb, tiny_run, tiny, tmp_path)), "index.json")
    assert not marker.exists()


@pytest.mark.parametrize("verb", READERS)
def test_a_checkpoint_of_the_format_with_pickles_is_refused(
    verb, tiny, tiny_run, tmp_path, command: Command, marker
) -> None:
    folder = checkpoint_of(tiny_run)
    (folder / "tensors" / ".metadata").write_bytes(pickled(marker))
    (folder / "tensors" / "index.json").unlink()
    seal(folder, lambda manifest: manifest.update(format="mmtrain-checkpoint/2"))
    ended = command("mmtrain", verb, *words_of(verb, tiny_run, tiny, tmp_path))
    assert ended.code == 2 and not marker.exists()
    assert "checkpoint" in ended.err


@pytest.mark.parametrize("verb", ["finetune", "generate", "export", "evaluate"])
def test_tensors_that_are_a_pickle_are_not_loaded(verb, tiny, tiny_run, tmp_path, command: Command, marker) -> None:
    folder = checkpoint_of(tiny_run)
    (file,) = (folder / "tensors").glob("*.distcp")
    size = file.stat().st_size
    planted = torch_file(marker)
    for start in json.loads((folder / "tensors" / "index.json").read_text())["tensors"].values():
        for shard in start["shards"]:  # one planted file for every tensor
            shard |= {"start": 0}
    content = planted + bytes(max(0, size - len(planted)))
    file.write_bytes(content)
    seal(folder)
    refused(command("mmtrain", verb, *words_of(verb, tiny_run, tiny, tmp_path)), "cannot be loaded")
    assert not marker.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.bin", "pytorch_model.bin.index.json"])
@pytest.mark.parametrize("verb", ["generate", "search", "finetune"])
def test_weights_of_an_export_are_never_a_pickle(
    verb, name, tiny, tiny_export, tmp_path, command: Command, marker
) -> None:
    (tiny_export / "model.safetensors").unlink()
    (tiny_export / name).write_bytes(torch_file(marker))
    refused(
        command("mmtrain", verb, *words_of(verb, tiny_export, tiny, tmp_path), *own_data(verb, tiny)),
        "model.safetensors is missing",
    )
    assert not marker.exists()


def test_from_pretrained_reads_safetensors_only(tiny_export: Path, marker: Path) -> None:
    from mmtrain.hf import VLBertForImageCaptioning

    (tiny_export / "model.safetensors").unlink()
    (tiny_export / "pytorch_model.bin").write_bytes(torch_file(marker))
    with pytest.raises(OSError, match="safetensors"):
        VLBertForImageCaptioning.from_pretrained(tiny_export)
    assert not marker.exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_code_that_an_export_brings_is_not_run(file, tiny, tiny_export, tmp_path, command: Command, marker) -> None:
    (tiny_export / "planted.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nclass Any: pass\n")
    path = tiny_export / file
    kinds = ("AutoConfig", "AutoModel", "AutoTokenizer", "AutoProcessor", "AutoImageProcessor")
    said = json.loads(path.read_text()) | {"auto_map": dict.fromkeys(kinds, "planted.Any")}
    path.write_text(json.dumps(said))
    ended = command("mmtrain", "generate", *words_of("generate", tiny_export, tiny, tmp_path))
    assert (ended.code, ended.err) == (0, "") and not marker.exists()  # the classes of this package are used


# Places of data.

PLACES = ["pipe:touch {}", "PIPE:touch {}", " pipe:touch {}", "file://{}", "simplecache::file://{}", "file::{}"]
PLACES += ["http://h/a::file://{}", "python:{}://", "local://{}", "zip://a::file://{}", "ssh://h/{}"]
FORMS = {"text": "'{}'", "list": "['{}']", "two": "[data, '{}']"}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("verb", ["evaluate", "finetune"])
def test_a_run_s_commands_and_detours_are_refused(
    verb, place, tiny, tiny_run, tmp_path, command: Command, marker
) -> None:
    text = place.format(marker)
    say_of_data(tiny_run, f"data:\n  train: '{text}'\n  heldout: '{text}'\n  cache_dir: {tiny_run}/cache\n")
    ended = command("mmtrain", verb, *words_of(verb, tiny_run, tiny, tmp_path), "data.allow_pipe=true")
    assert ended.code == 2 and "data.heldout is " in ended.err and "on the command line" in ended.err
    assert "touch" not in ended.err and not marker.exists() and not (tiny_run / "cache").exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_command_of_a_run_is_refused_in_every_form(form, tiny_run, command: Command, marker) -> None:
    say_of_data(tiny_run, f"data:\n  train: x\n  heldout: {FORMS[form].format(f'pipe:touch {marker}')}\n")
    refused(command("mmtrain", "evaluate", tiny_run), "data.heldout is 'pipe:***'")
    assert not marker.exists()


def test_what_evaluation_does_not_open_may_stand_there(tiny, tiny_run, command: Command, marker) -> None:
    say_of_data(tiny_run, f"data:\n  num_workers: 0\n  train: 'pipe:touch {marker}'\n  heldout: {tiny.heldout}\n")
    ended = command("mmtrain", "evaluate", tiny_run)
    assert ended.code == 0 and f"data.heldout, as {tiny_run}/config.yaml says: '{tiny.heldout}'"[:60] in ended.err
    assert not marker.exists()


def test_the_user_s_own_places_take_the_place_of_a_stranger_s(tiny, tiny_run, tmp_path, command, marker) -> None:
    say_of_data(tiny_run, f"data:\n  train: 'pipe:touch {marker}'\n  heldout: 'pipe:touch {marker}'\n")
    words = [f"data.train={tiny.train}", f"data.heldout={tiny.heldout}"]
    ended = command("mmtrain", "finetune", *words_of("finetune", tiny_run, tiny, tmp_path), *words)
    assert ended.code == 0 and not marker.exists(), ended.err


@pytest.mark.parametrize("verb", ["pretrain", "finetune", "evaluate"])
def test_a_command_on_the_command_line_needs_the_flag(verb, tiny, tiny_run, tmp_path, command, marker) -> None:
    words = words_of(verb, tiny_run, tiny, tmp_path) if verb != "pretrain" else [*tiny.words, f"run_dir={tmp_path}/own"]
    refused(command("mmtrain", verb, *words, f"data.heldout=pipe:touch {marker}"), "give data.allow_pipe=true")
    assert not marker.exists() and not (tmp_path / "own").exists()


def test_an_export_s_places_are_not_taken_over(tiny, tiny_export, tmp_path, command: Command, marker) -> None:
    said = (tiny_export / "training.yaml").read_text()
    (tiny_export / "training.yaml").write_text(
        said.partition("\ndata:")[0] + f"\ndata:\n  train: 'pipe:touch {marker}'\n"
    )
    ended = command("mmtrain", "finetune", *words_of("finetune", tiny_export, tiny, tmp_path))
    refused(ended, "data.train is not given")
    assert not marker.exists()


def test_an_export_says_nothing_of_places(tiny: Tiny) -> None:
    for name in ("README.md", "training.yaml", "config.json"):
        assert str(tiny.train.parent) not in (tiny.export / name).read_text()


def test_a_cache_elsewhere_is_not_taken_over(tiny_run, tmp_path, command: Command) -> None:
    address, folder = "http://127.0.0.1:9/x.tar", tmp_path / "cache"
    say_of_data(tiny_run, f"data:\n  train: x\n  heldout: {address}\n  read_retries: 0\n  cache_dir: {folder}\n")
    refused(command("mmtrain", "evaluate", tiny_run), "data.cache_dir is not set")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("line", ["base: {}", "task:\n  answers: {}", "base: [{}]"])
@pytest.mark.parametrize("verb", ["evaluate", "finetune"])
def test_a_run_s_config_names_no_other_files(verb, line, tiny, tiny_run, tmp_path, command, victim) -> None:
    (tiny_run / "config.yaml").write_text(line.format(victim))
    ended = command("mmtrain", verb, *words_of(verb, tiny_run, tiny, tmp_path))
    refused(ended, "the config of a run stands alone")


# YAML.

LETTERS = "abcdefghijklmnopqrstuvwxyz"
DOUBLED = [(old, new) for old, new in zip(LETTERS, LETTERS[1:], strict=False)]
BOMBS: dict[str, str] = {
    "laughs": "a: &a [x, x]\n" + "".join(f"{new}: &{new} [*{old}, *{old}]\n" for old, new in DOUBLED),
    "merged laughs": "a: &a {x: 1}\n" + "".join(f"{new}: &{new} {{<<: [*{old}, *{old}]}}\n" for old, new in DOUBLED),
    "itself": "a: &a [*a]",
    "itself in a map": "a: &a {b: *a}",
    "many aliases": "a: &a x\nb: [" + "*a, " * 5000 + "]",
    "deep": "a: " + "[" * 5000,
    "deep and closed": "a: " + "[" * 3000 + "]" * 3000,
    "deep maps": "".join(f"{' ' * n}a:\n" for n in range(300)),
    "object": "a: !!python/object/apply:os.system ['touch /tmp/never']",
    "object new": "a: !!python/object/new:pathlib.Path [x]",
    "name": "a: !!python/name:os.system",
    "module": "a: !!python/module:os",
    "tuple": "a: !!python/tuple [1]",
    "own tag": "a: !planted x",
    "long number": "a: " + "9" * 20000,
    "no month": "a: 2024-13-45",
    "no number": "a: !!int x",
    "no float": "a: !!float x",
    "no bool": "a: !!bool x",
    "no time": "a: !!timestamp x",
    "no binary": "a: !!binary é",
    "no alias": "a: *nothing",
    "twice": "a: 1\na: 2",
    "unhashable": "? [a]\n: b",
    "unhashable map": "? {a: b}\n: c",
    "control": "a: \x07",
    "no end": "a: 'x",
    "two documents": "a: 1\n---\nb: 2",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_yaml_beyond_the_limits_is_one_sentence(bomb: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse_yaml(BOMBS[bomb])
    assert str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("bomb", ["laughs", "itself", "deep", "object", "long number", "twice", "control"])
@pytest.mark.parametrize("verb", ["evaluate", "finetune", "pretrain"])
def test_a_config_beyond_the_limits_is_one_sentence(verb, bomb, tiny, tiny_run, tmp_path, command: Command) -> None:
    (tiny_run / "config.yaml").write_text(BOMBS[bomb])
    words = ["--config", tiny_run / "config.yaml"] if verb == "pretrain" else words_of(verb, tiny_run, tiny, tmp_path)
    refused(command("mmtrain", verb, *words), "config.yaml is not YAML")


def test_yaml_within_the_limits_is_read() -> None:
    many = "a: [" + ", ".join(map(str, range(20_000))) + "]\n"
    assert len(parse_yaml(many)["a"]) == 20_000 < MAX_NODES
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 1e-3}\nc: [*a, *a]") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 1e-3},
        "c": [{"x": 1}, {"x": 1}],
    }


DOCUMENTS: dict[str, bytes] = {
    "empty": b"",
    "list": b"[1]",
    "number": b"1",
    "cut": b'{"a": 1',
    "deep": b'{"a": ' + b"[" * 100_000,
    "deep maps": b'{"a": ' * 100_000,
    "no text": b"\xff\xfe\x00\x01",
    "pickle": pickled(Path("/nowhere/at/all")),
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "large": b" " * 2000 + b"{}",
    "long number": b'{"a": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_json_beyond_the_limits_is_one_sentence(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(DOCUMENTS[name])
    with pytest.raises(DocumentError) as caught:
        read_json_object(tmp_path / "x.json", max_bytes=10**6 if "deep" in name else 1500 if name == "large" else 10**5)
    assert "x.json" in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_json_is_read_from_regular_files_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(DocumentError):
            read_json_object(tmp_path / name)
    with pytest.raises(DocumentError, match="no regular file"):
        read_json_object(Path("/dev/zero"))


# Manifests, indexes and links of checkpoints.


def outside(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["files"].update({name: {"bytes": 5, "sha256": "0" * 64}})


def with_value(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest.update({key: value})


MANIFESTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "absolute": outside("/etc/hostname"),
    "above": outside("../../../victim.txt"),
    "above below": outside("tensors/../../victim.txt"),
    "hidden": outside("tensors/.metadata"),
    "empty name": outside(""),
    "dot": outside("."),
    "nul": outside("a\0b"),
    "surrogate": outside("\ud800"),
    "long": outside("a" * 5000),
    "no step": with_value("step", "one"),
    "step below 0": with_value("step", -1),
    "no config": with_value("config", []),
    "config of nothing": with_value("config", {}),
    "config of texts": with_value("config", {"model": "x", "data": "y", "train": 1, "loss": 2, "itc": 3}),
    "no files": with_value("files", ["tensors/index.json"]),
    "no sizes": with_value("files", {"tensors/index.json": {"bytes": "many", "sha256": "x"}}),
    "no records": with_value("files", {"tensors/index.json": 7}),
    "no pieces": with_value("num_pieces", None),
    "no checksum of a tokenizer": with_value("tokenizer_sha256", {"a": 1}),
    "another key": with_value("more", 1),
    "another format": with_value("format", ["mmtrain-checkpoint/3"]),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_manifest_that_reaches_out_is_refused(case, tiny_run, victim, command: Command) -> None:
    seal(checkpoint_of(tiny_run), MANIFESTS[case])
    refused(command("mmtrain", "reshard", checkpoint_of(tiny_run), "--verify"), "checkpoint")


def shard_with(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda tensor: tensor["shards"][0].update(values)


INDEXES: dict[str, Callable[[dict[str, Any]], None]] = {
    "absolute file": shard_with(file="/etc/hostname"),
    "file above": shard_with(file="../manifest.json"),
    "no such file": shard_with(file="__9_9.distcp"),
    "file of numbers": shard_with(file=7),
    "start below 0": shard_with(start=-1),
    "behind the end": shard_with(start=2**40),
    "no bytes": shard_with(bytes=0),
    "many bytes": shard_with(bytes=2**62),
    "no number": shard_with(start="0"),
    "a fraction": shard_with(start=0.5),
    "true": shard_with(start=True),
    "offset below 0": shard_with(offset=[-1]),
    "offset beyond": shard_with(offset=[2**40, 0]),
    "fewer dimensions": shard_with(shape=[], offset=[]),
    "many dimensions": lambda tensor: tensor.update(shape=[1] * 100),
    "huge": lambda tensor: tensor.update(shape=[2**62, 2**62]),
    "huge and covered": lambda tensor: (tensor.update(shape=[2**40]), shard_with(shape=[2**40], offset=[0])(tensor)),
    "no dtype": lambda tensor: tensor.update(dtype="object"),
    "dtype of a method": lambda tensor: tensor.update(dtype="load"),
    "no shards": lambda tensor: tensor.update(shards=[]),
    "shards twice": lambda tensor: tensor.update(shards=tensor["shards"] * 2),
    "a table of shards": lambda tensor: tensor.update(shards={"a": 1}),
    "no shape": lambda tensor: tensor.pop("shape"),
}


@pytest.mark.parametrize("case", INDEXES)
def test_an_index_that_lies_is_refused(case, tiny_run, command: Command) -> None:
    change_index(tiny_run, INDEXES[case])
    refused(command("mmtrain", "reshard", tiny_run), "index.json is malformed")


@pytest.mark.parametrize("name", ["tensors/index.json", "tensors/__0_0.distcp", "tensors"])
@pytest.mark.parametrize("verb", ["reshard", "generate"])
def test_a_link_out_of_a_checkpoint_is_not_followed(verb, name, tiny, tiny_run, tmp_path, command: Command) -> None:
    inside = checkpoint_of(tiny_run) / name
    inside.rename(tmp_path / "outside")
    inside.symlink_to(tmp_path / "outside")
    ended = command("mmtrain", verb, *words_of(verb, tiny_run, tiny, tmp_path))
    assert ended.code == 2 and "link" in ended.err


def test_a_checkpoints_folder_elsewhere_is_read(tiny, tiny_run, tmp_path, command: Command) -> None:
    (tiny_run / "checkpoints").rename(tmp_path / "disk")
    (tiny_run / "checkpoints").symlink_to(tmp_path / "disk")
    assert command("mmtrain", "generate", *words_of("generate", tiny_run, tiny, tmp_path)).code == 0


@pytest.mark.parametrize("name", ["log.jsonl", "answers", "retrieved.png", "config.yaml"])
def test_what_a_run_writes_is_no_link(name, tiny_run, tmp_path, command: Command, victim) -> None:
    before = victim.read_text()
    path = tiny_run / name
    if path.exists():
        (shutil.rmtree if path.is_dir() else os.unlink)(path)
    target = tmp_path / "theirs.yaml" if name == "config.yaml" else victim
    if name == "config.yaml":
        target.write_text("data: {train: x, heldout: y}\n")
    path.symlink_to(target)
    refused(command("mmtrain", "evaluate", tiny_run), "holds links or special files where a run writes", name)
    assert victim.read_text() == before


@pytest.mark.parametrize("name", ["log.jsonl", "status.json", "config.yaml", "checkpoints/latest", "tokenizer.model"])
def test_no_command_waits_for_a_pipe_in_a_run(name: str, tiny_run: Path, tiny: Tiny, command: Command) -> None:
    (tiny_run / name).unlink(missing_ok=True)
    os.mkfifo(tiny_run / name)
    for words in (["evaluate", tiny_run], ["compare", tiny_run], ["generate", tiny_run, tiny.pictures / "0.jpg"]):
        ended = command("mmtrain", *words)
        assert ended.code in (0, 2) and "Traceback" not in ended.err
        if ended.code == 2:
            refused(ended, name)


@pytest.mark.parametrize("name", ["lock", "status.json", "log.jsonl"])
def test_what_training_writes_is_no_link(name, tiny, tmp_path, command: Command, victim) -> None:
    before, run_dir = victim.read_text(), tmp_path / "own"
    run_dir.mkdir()
    (run_dir / name).symlink_to(victim)
    ended = command("mmtrain", "pretrain", *tiny.words, f"run_dir={run_dir}")
    refused(ended, "holds links or special files where a run writes", name)
    assert victim.read_text() == before and sorted(path.name for path in run_dir.iterdir()) == [name]


# Exports.

MAPS: dict[str, Any] = {
    "absolute": {"w": "/etc/hostname"},
    "above": {"w": "../outside.safetensors"},
    "folder": {"w": "a/b.safetensors"},
    "dots": {"w": ".."},
    "empty": {"w": ""},
    "nul": {"w": "a\0"},
    "number": {"w": 7},
    "list": ["w"],
    "none": None,
}


@pytest.mark.parametrize("case", MAPS)
@pytest.mark.parametrize("verb", ["generate", "finetune"])
def test_weights_lie_in_the_export_s_own_folder(verb, case, tiny, tiny_export, tmp_path, command: Command) -> None:
    (tiny_export / "model.safetensors.index.json").write_text(json.dumps({"weight_map": MAPS[case]}))
    ended = command("mmtrain", verb, *words_of(verb, tiny_export, tiny, tmp_path), *own_data(verb, tiny))
    refused(ended, "model.safetensors.index.json names no weight files of its own folder")


@pytest.mark.parametrize("verb", ["generate", "search", "finetune"])
def test_weights_that_are_a_link_elsewhere_are_refused(verb, tiny, tiny_export, tmp_path, command: Command) -> None:
    file = tiny_export / "model.safetensors"
    file.rename(tmp_path / "outside.safetensors")
    file.symlink_to(tmp_path / "outside.safetensors")
    ended = command("mmtrain", verb, *words_of(verb, tiny_export, tiny, tmp_path), *own_data(verb, tiny))
    refused(ended, "model.safetensors is a link to a file outside its folder")


def test_weights_in_the_hub_s_cache_are_links_and_read(tiny, tiny_export, tmp_path, command: Command) -> None:
    snapshot, blobs = tmp_path / "models--x" / "snapshots" / "abc", tmp_path / "models--x" / "blobs"
    shutil.copytree(tiny_export, snapshot)
    blobs.mkdir()
    (snapshot / "model.safetensors").rename(blobs / "0")
    (snapshot / "model.safetensors").symlink_to("../../blobs/0")
    assert command("mmtrain", "generate", *words_of("generate", snapshot, tiny, tmp_path)).code == 0


@pytest.mark.parametrize("header", [2**63 - 1, 2**40, 10**9, 0])
def test_a_header_that_lies_about_its_size_is_refused(header: int, tiny, tiny_export, tmp_path, command) -> None:
    file = tiny_export / "model.safetensors"
    file.write_bytes(header.to_bytes(8, "little") + file.read_bytes()[8:])
    refused(command("mmtrain", "generate", *words_of("generate", tiny_export, tiny, tmp_path)), "model.safetensors")


def test_of_a_tokenizer_folder_only_its_files_are_copied(tmp_path: Path) -> None:
    from mmtrain.data.folder_tokenizer import FILES
    from mmtrain.monitor.folder import TOKENIZER_FILES, _copy_tokenizer

    source = tmp_path / "hub"
    source.mkdir()
    for name in (*FILES, "token.json", "my_tokens.json", "tokenizer.json.bak", "model.safetensors"):
        (source / name).write_text("{}")
    _copy_tokenizer(source, tmp_path / "tokenizer.model")
    assert TOKENIZER_FILES == FILES
    assert sorted(path.name for path in (tmp_path / "tokenizer.model").iterdir()) == sorted(FILES)


# Secrets.


def test_a_secret_in_an_address_stays_with_its_owner(tiny, tmp_path, command: Command) -> None:
    address = f"http://me:{SECRET.replace(' ', '')}@127.0.0.1:9/x.tar?sig=abc"
    words = [*tiny.words, f"run_dir={tmp_path}/own", f"data.heldout={address}", f"data.cache_dir={tmp_path}/cache"]
    ended = command("mmtrain", "pretrain", *words, "data.read_retries=1")
    assert ended.code == 2 and "127.0.0.1" in ended.err
    assert SECRET.replace(" ", "") not in ended.err and "sig=abc" not in ended.err


def test_a_config_with_a_secret_is_its_owner_s(tiny, tmp_path: Path) -> None:
    from mmtrain.config.load import load_config
    from mmtrain.monitor.folder import RunFolder

    for name, place, mode in (("plain", "http://h/x.tar", 0o644), ("signed", "http://h/x.tar?sig=abc", 0o600)):
        run_dir = tmp_path / name
        run_dir.mkdir()
        words = [f"data.train={place}", f"data.tokenizer={tiny.tokenizer}", f"run_dir={run_dir}"]
        plan = load_config(None, words)
        folder = RunFolder(run_dir, writes=True)
        folder.copy_inputs(plan)
        folder.close()
        written = run_dir / "config.yaml"
        assert load_config(written, []).data.train == (place,)  # the run reads its data by it
        assert written.stat().st_mode & 0o777 & ~os.umask(os.umask(0)) == mode & ~os.umask(os.umask(0))


def test_a_checkpoint_of_signed_places_says_no_secret(tiny: Tiny) -> None:
    from mmtrain.checkpoint.resume import describe
    from mmtrain.config.load import load_config
    from mmtrain.data.tokenizer import Tokenizer

    class Order:
        def state(self) -> dict[str, Any]:
            return {}

    plan = load_config(None, ["data.train=http://u:p@h/x.tar?sig=abc", "data.heldout=s3://b/y"])
    manifest = describe(plan, 1, Order(), Tokenizer(tiny.tokenizer))
    assert manifest.config["data"]["train"] == ["http://***@h/x.tar?***"]
    assert manifest.config["data"]["heldout"] == ["s3://b/y"]


def test_weights_alone_are_not_resumed(tiny, tiny_run, tmp_path, command: Command) -> None:
    assert command("mmtrain", "reshard", tiny_run, "--to", tmp_path / "w", "--weights-only").code == 0
    ended = command("mmtrain", "pretrain", *tiny.words, f"run_dir={tmp_path}/w")
    refused(ended, "has no optimizer moments", f"model.init_from={tmp_path}/w")
    assert not (tmp_path / "w" / "status.json").exists()


def test_a_run_past_its_end_says_so(tiny, tiny_run, command: Command) -> None:
    words = [*tiny.words, f"run_dir={tiny_run}", "train.num_steps=1"]
    ended = command("mmtrain", "pretrain", *words)
    assert ended.code == 0 and "nothing is left to train: the run stands after step 1" in ended.err


def test_a_run_whose_name_is_no_utf_8_is_trained_and_evaluated(tiny, tmp_path, command: Command) -> None:
    for name in ("d\udce9t", "exp #1", "2024-05-01"):
        run_dir = tmp_path / name
        assert command("mmtrain", "pretrain", *tiny.words, f"run_dir={run_dir}").code == 0
        assert (run_dir / "config.yaml").is_file()
        assert command("mmtrain", "evaluate", run_dir).code == 0


def test_a_run_is_evaluated_from_any_folder(tiny, tmp_path, command: Command, monkeypatch) -> None:
    monkeypatch.chdir(tiny.folder)
    places = ["data.train=set/train", "data.heldout=set/heldout", "data.tokenizer=set/tokenizer.model"]
    assert command("mmtrain", "pretrain", "--config", "run.yaml", *places, f"run_dir={tmp_path}/own").code == 0
    monkeypatch.chdir("/")
    assert command("mmtrain", "evaluate", tmp_path / "own").code == 0


FOLDERS = {"[1]": "list", "{": "not JSON", "[" * 5000: "deep", '{"cls_token": 7}': "wanted a text", "\x00": "not JSON"}


@pytest.mark.parametrize("content", FOLDERS, ids=[name for name in FOLDERS.values()])
@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_a_tokenizer_folder_that_is_damaged_is_one_sentence(file: str, content: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    from mmtrain.data.faults import DataError
    from mmtrain.data.folder_tokenizer import FolderTokenizer

    Tokenizer(WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match="data.tokenizer is ") as refused:
        FolderTokenizer(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"state": 1}', "[" * 5000, '{"attempt": "x"}'])
def test_a_status_that_is_damaged_is_passed_over(content: str, tmp_path: Path) -> None:
    from mmtrain.monitor.status import read_status

    (tmp_path / "status.json").write_text(content)
    assert read_status(tmp_path) is None


@pytest.mark.parametrize("name", ["answers.json", "answers.txt"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 5000, b"a\na\n", b"[1, 2]"])
def test_answers_that_are_none_are_one_sentence(name: str, content: bytes, tmp_path: Path) -> None:
    from mmtrain.config.answers import read_answers

    (tmp_path / name).write_bytes(content)
    if name.endswith(".txt") and content.startswith(b"["):
        assert len(read_answers(tmp_path / name)) == 1  # an answer, if an odd one
        return
    with pytest.raises(ValueError, match="task.answers is ") as refused:
        read_answers(tmp_path / name)
    assert "\n" not in str(refused.value)


def test_a_checkpoint_that_is_a_link_goes_as_a_link(tmp_path: Path) -> None:
    from mmtrain.checkpoint import folders

    elsewhere, checkpoints = tmp_path / "elsewhere", tmp_path / "checkpoints"
    for folder in (elsewhere, *(checkpoints / f"step-0000000{step}" for step in (2, 3))):
        folder.mkdir(parents=True)
    (elsewhere / "mine").write_text("kept")
    (checkpoints / "step-00000001").symlink_to(elsewhere)
    folders.drop_old(checkpoints, keep_last=2, keep_every=0)
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-00000002", "step-00000003"]
    assert (elsewhere / "mine").read_text() == "kept"


def test_a_converted_run_s_config_stays_its_owner_s(tiny_run, tmp_path, command: Command) -> None:
    (tiny_run / "config.yaml").chmod(0o600)
    assert command("mmtrain", "reshard", tiny_run, "--to", tmp_path / "w").code == 0
    assert (tmp_path / "w" / "config.yaml").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "w" / "tokenizer.model").read_bytes() == (tiny_run / "tokenizer.model").read_bytes()
