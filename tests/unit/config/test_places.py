"""Path-typed keys: text as it is, home folders, names that cannot be, and places that strangers may name."""

import os
from pathlib import Path

import pytest

from mmtrain.config.load import ConfigError, dump_config, load_config, read_config
from mmtrain.config.places import has_secret, redacted, with_absolute_places, without_places
from mmtrain.config.schema import RunConfig, SetConfig
from mmtrain.config.trust import PLACES

NAMES = ["2024-05-01", "007", "1e3", "null", "[v2]", "a: b", "exp #1", "new #2", "yes", "{x}", "- a", "&a", "*a", "!t"]
NAMES += [
    "%a",
    "@a",
    "`a",
    "'a",
    'a"',
    "|",
    ">",
    "?",
    ":",
    "0x1f",
    "1:30",
    ".inf",
    "~x y",
    " a",
    "a ",
    "d\udce9t",
    "é",
    "=",
    "a=b",
]


def faults_of(*overrides: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides)
    return caught.value.faults


@pytest.mark.parametrize("name", NAMES)
def test_a_path_takes_its_text_as_it_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir(name)  # where it exists it is meant, also where it could be a list or a home folder
    config = load_config(
        None, [f"{key}={name}" for key in ("run_dir", "data.tokenizer", "model.init_from", "data.train")]
    )
    assert str(config.run_dir) == str(config.data.tokenizer) == str(config.model.init_from) == name
    assert config.data.train == (name,)


@pytest.mark.parametrize("name", ["2024-05-01", "007", "1e3", "null", "[v2]", "a: b", "new #2", "true"])
def test_a_run_dir_that_is_new_is_named_as_it_is(name: str) -> None:
    assert str(load_config(None, [f"run_dir={name}"]).run_dir) == name


def test_lists_and_sets_are_read_where_no_such_name_exists() -> None:
    config = load_config(None, ["data.train=[007, 2024-05-01]", "data.heldout=[a b, c]", "task.answers=[yes, no, 1]"])
    assert config.data.train == ("007", "2024-05-01") and config.data.heldout == ("a b", "c")
    assert config.task.answers == ("yes", "no", "1")
    config = load_config(None, ["data.train=[{shards: 1, weight: 2}, {shards: [3], weight: 1, modality: text}]"])
    first, second = config.data.train
    assert (first, second.shards) == (SetConfig(shards=("1",), weight=2.0), ("3",))
    assert load_config(None, ["data.train={shards: x, weight: null}"]).data.train == (SetConfig(shards=("x",)),)


@pytest.mark.parametrize("pattern", ["{000..009}.tar", "{a,b}", "{a,b}/x.tar", "[ab]*.tar", "*.tar", "?.tar", "x{1,2}"])
def test_patterns_are_text(pattern: str) -> None:
    assert load_config(None, [f"data.train={pattern}"]).data.train == (pattern,)


def test_nothing_and_null_unset_a_path_that_may_be_left_out() -> None:
    for text in ("", "null"):
        assert load_config(None, [f"model.init_from={text}"]).model.init_from is None


@pytest.mark.parametrize("override", ['run_dir="x y"', "data.tokenizer='007'"])
def test_quotes_of_yaml_are_refused_in_a_path(override: str) -> None:
    (fault,) = faults_of(override)
    assert "leave these quotes out" in fault


@pytest.mark.parametrize("key", ["run_dir", "data.train", "data.heldout", "data.tokenizer", "data.cache_dir"])
@pytest.mark.parametrize("way", ["file", "word"])
def test_a_home_folder_is_expanded_in_every_path(
    key: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    section, _, name = key.rpartition(".")
    line = f"{name}: ~/x" if not section else f"{section}:\n  {name}: ~/x"
    (tmp_path / "c.yaml").write_text(line)
    config = load_config(tmp_path / "c.yaml", []) if way == "file" else load_config(None, [f"{key}=~/x"])
    value = getattr(getattr(config, section) if section else config, name)
    assert str(value[0] if isinstance(value, tuple) else value) == str(tmp_path / "x")


@pytest.mark.parametrize("key", ["run_dir", "model.init_from", "data.tokenizer", "data.cache_dir"])
def test_an_address_is_no_local_path(key: str) -> None:
    (fault,) = faults_of(f"{key}=s3://user:hunter2@bucket/x")
    assert fault == f"{key} is 's3://***@bucket/x': it is an address; wanted a local path"


@pytest.mark.parametrize(
    "word",
    ["data.heldout=[{shards: ADDRESS}]", "data.train=[{shards: ADDRESS, weight: a}]", "ADDRESS", "train=ADDRESS"],
)
def test_no_fault_shows_the_secret_of_an_address(word: str) -> None:
    faults = faults_of(word.replace("ADDRESS", "https://user:hunter2@host/x.tar"))
    assert faults and not any("hunter2" in fault for fault in faults)


@pytest.mark.parametrize("key", ["base", "data.cache_dir", "run_dir"])
def test_the_home_of_nobody_is_one_sentence(key: str, tmp_path: Path) -> None:
    section, _, name = key.rpartition(".")
    line = f"{name}: ~nobody-of-this-name/x"
    (tmp_path / "c.yaml").write_text(f"{section}:\n  {line}" if section else line)
    with pytest.raises(ConfigError, match="~nobody-of-this-name/x") as refused:
        load_config(tmp_path / "c.yaml", [])
    assert len(refused.value.faults) == 1


@pytest.mark.parametrize("text", ["$HOME/r", "${HOME}/r", "a/$X", "$x"])
@pytest.mark.parametrize("key", ["run_dir", "data.train", "model.init_from", "data.tokenizer"])
def test_a_variable_is_refused_in_every_path(key: str, text: str) -> None:
    (fault,) = faults_of(f"{key}={text}")
    assert fault.startswith(f"{key} is '{text}'") and "variables are not expanded" in fault


def test_a_dollar_that_names_what_is_there_is_a_dollar(tmp_path: Path) -> None:
    place = tmp_path / "$old"
    place.mkdir()
    assert load_config(None, [f"data.train={place}", "run_dir=cost$"]).data.train == (str(place),)


@pytest.mark.parametrize("key", ["run_dir", "data.train", "data.tokenizer", "model.init_from", "data.cache_dir"])
def test_a_name_that_no_file_can_have_is_one_sentence(key: str, tmp_path: Path) -> None:
    section, _, name = key.rpartition(".")
    for text, words in (("a" * 400, "name too long"), ("a/" * 3000, "name too long"), ("a\0b", "no file can have")):
        (fault,) = faults_of(f"{key}={text}")
        assert fault.startswith(f"{key} is ") and words in fault and len(fault) < 250
    line = f'{name}: "\\uD800"'
    (tmp_path / "c.yaml").write_text(f"{section}:\n  {line}" if section else line)
    with pytest.raises(ConfigError, match=f"{key} is .*no file can have that name"):
        load_config(tmp_path / "c.yaml", [])


MAPPINGS = {
    "{s: w}": "data.train.0.s is 'w'; wanted nothing of that name",
    "{shard: data/train}": "data.train.0.shard is 'data/train'; wanted nothing of that name",
    "{shards: a, wieght: 2}": "data.train.0.wieght is '2'; wanted nothing of that name",
    "{shards: a, modality: imge}": "data.train.0.modality is 'imge'; wanted one of",
    "{shards: a, weight: heavy}": "data.train.0.weight is 'heavy'; wanted a number",
}


@pytest.mark.parametrize("text", MAPPINGS)
def test_a_mapping_that_is_no_set_is_named_by_its_key(text: str) -> None:
    faults = faults_of(f"data.train={text}")
    assert any(MAPPINGS[text] in fault for fault in faults)
    assert all("\n" not in fault for fault in faults)


def test_a_heldout_split_takes_no_section() -> None:
    (fault,) = faults_of("data.heldout={shards: data/heldout}")
    assert (
        fault
        == "data.heldout.0 is {'shards': ['data/heldout']}; wanted text (in quotes where YAML reads something else)"
    )


@pytest.mark.parametrize("value", ["5", "2024-05-01", "yes", "[[a]]", "[5]"])
def test_a_file_whose_places_are_no_texts_says_quotes(value: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"data:\n  train: {value}\n")
    with pytest.raises(ConfigError, match="in quotes where YAML reads something else"):
        load_config(tmp_path / "c.yaml", [])


def test_a_config_is_written_with_places_that_hold_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = [
        "data.train=[{shards: [a, 'http://h/b.tar']}, 'x/{0..3}.tar']",
        "data.heldout=d\udce9t",
        "data.tokenizer=t",
    ]
    config = with_absolute_places(load_config(None, [*given, "run_dir=r", "model.init_from=m"]))
    monkeypatch.chdir("/")
    (tmp_path / "c.yaml").write_text(dump_config(config), encoding="utf-8")
    again = load_config(tmp_path / "c.yaml", [])
    assert again == config
    assert again.data.train[0].shards == (f"{tmp_path}/a", "http://h/b.tar")
    assert again.data.heldout == (f"{tmp_path}/d\udce9t",)
    assert again.data.train[1] == f"{tmp_path}/x/{{0..3}}.tar"
    assert (again.run_dir, again.data.tokenizer) == (tmp_path / "r", tmp_path / "t")
    assert again.model.init_from == tmp_path / "m"


@pytest.mark.parametrize(
    "train", ["d\udce9t", "{shards: [d\udce9t, b]}", "[{shards: d\udce9t, weight: 2}, b]"], ids=ascii
)
def test_the_config_of_a_run_is_read_back_with_names_that_are_not_utf_8(train: str, tmp_path: Path) -> None:
    config = load_config(None, [f"data.train={train}", "data.heldout=h\udce9"])
    (tmp_path / "c.yaml").write_text(dump_config(config), encoding="utf-8")
    again, refusals = read_config(tmp_path / "c.yaml", [], trusted=False)
    assert not refusals and again.data == config.data


def test_what_is_given_away_has_no_places_and_no_secrets() -> None:
    config = load_config(
        None, ["data.train=[{shards: 'http://u:p@h/x.tar?sig=s', weight: 1}, s3://b/y]", "run_dir=/a/b"]
    )
    assert has_secret(config) and not has_secret(without_places(config))
    said = str(redacted(config.model_dump(mode="json")))
    assert "u:p" not in said and "sig=s" not in said and "h/x.tar" in said and "s3://b/y" in said
    given = without_places(config)
    assert given.data.train == () and given.run_dir == Path("b")


PIPED = ["pipe:cat x", "PIPE:cat x", " pipe:cat x"]
DETOURS = [*PIPED, "file:///etc/passwd", "simplecache::s3://b/x", "s3://b::file:///x", "local://x", "python:x://y"]
DETOURS += ["ssh://h/x", "reference://x", "http://h/a::file:///b", "FILE:///x", "zip://a::s3://b", "data:,x://"]


@pytest.mark.parametrize("place", DETOURS)
@pytest.mark.parametrize("form", ["text", "list", "set"])
def test_a_run_s_config_names_only_files_and_plain_addresses(place: str, form: str, tmp_path: Path) -> None:
    place = place.replace("'", "''")
    value = {"text": f"'{place}'", "list": f"[a, '{place}']", "set": f"[{{shards: ['{place}']}}]"}[form]
    (tmp_path / "config.yaml").write_text(f"data:\n  train: {value}\n")
    _, refusals = read_config(tmp_path / "config.yaml", ["data.allow_pipe=true"], trusted=False)
    (refusal,) = refusals
    assert refusal.knob == "data.train" and "on the command line: data.train=" in refusal.sentence
    _, refusals = read_config(tmp_path / "config.yaml", ["data.train=other"], trusted=False)
    assert not refusals


@pytest.mark.parametrize(
    "place", ["data/train", "/a/b", "http://h/x.tar", "https://h/d", "s3://b/x", "gs://b/x", "~/x"]
)
def test_files_and_plain_addresses_of_a_run_are_read(place: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"data:\n  train: '{place}'\n")
    assert read_config(tmp_path / "config.yaml", [], trusted=False)[1] == []


@pytest.mark.parametrize("place", PIPED)
@pytest.mark.parametrize("key", PLACES)
def test_a_command_runs_only_with_the_flag_on_the_command_line(key: str, place: str, tmp_path: Path) -> None:
    (fault,) = faults_of(f"{key}={place}")
    assert fault.startswith(f"{key} is ") and "data.allow_pipe=true" in fault and "cat" not in fault
    assert getattr(load_config(None, [f"{key}={place}", "data.allow_pipe=true"]).data, key[5:]) == (place,)
    (tmp_path / "c.yaml").write_text(f"data:\n  allow_pipe: true\n  {key[5:]}: '{place}'\n")
    with pytest.raises(ConfigError, match="data.allow_pipe is set in .*; it counts on the command line only"):
        load_config(tmp_path / "c.yaml", [])
    (tmp_path / "c.yaml").write_text(f"data:\n  {key[5:]}: '{place}'\n")
    assert load_config(tmp_path / "c.yaml", ["data.allow_pipe=true"]).data.allow_pipe


def test_the_flag_is_written_nowhere() -> None:
    config = load_config(None, ["data.allow_pipe=true"])
    assert "allow_pipe" not in dump_config(config) and config.model_dump()["data"].get("allow_pipe") is None


def test_a_base_of_another_folder_is_a_stranger_s(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "base.yaml").write_text("data:\n  train: 'pipe:cat x'\n  heldout: h\n")
    (tmp_path / "own.yaml").write_text("base: theirs/base.yaml\n")
    with pytest.raises(ConfigError, match="came with a run, an export or another folder"):
        load_config(tmp_path / "own.yaml", ["data.allow_pipe=true"])
    assert load_config(tmp_path / "own.yaml", ["data.train=t"]).data.heldout == ("h",)
    (tmp_path / "base.yaml").write_text("data:\n  train: 'pipe:cat x'\n")
    (tmp_path / "own.yaml").write_text("base: base.yaml\n")
    assert load_config(tmp_path / "own.yaml", ["data.allow_pipe=true"]).data.train == ("pipe:cat x",)


@pytest.mark.parametrize("line", ["base: /etc/hostname", "task:\n  answers: /etc/hostname"])
def test_a_run_s_config_names_no_other_files(line: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(line)
    with pytest.raises(ConfigError, match="the config of a run stands alone"):
        read_config(tmp_path / "config.yaml", [], trusted=False)


def test_a_cache_is_taken_over_only_inside_the_run(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    for place, taken in (("/var/tmp", None), (str(tmp_path / "c"), tmp_path / "c"), (f"{tmp_path}/../c", None)):
        config.write_text(f"data:\n  cache_dir: {place}\n")
        assert read_config(config, [], trusted=False)[0].data.cache_dir == taken
    assert load_config(config, []) != RunConfig()
