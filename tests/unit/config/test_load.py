"""Reading a run: files, overrides, and every fault at once."""

from pathlib import Path

import pytest

from mmtrain.config.load import ConfigError, dump_config, knobs, load_config, read_config
from mmtrain.config.schema import RunConfig

CONFIGS = Path(__file__).parents[3] / "configs"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def faults_of(path: Path | None, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return caught.value.faults


def test_no_file_and_no_override_is_the_schema_s_defaults() -> None:
    assert load_config(None, []) == RunConfig()


def test_an_override_wins_over_the_file_and_leaves_its_neighbours(tmp_path: Path) -> None:
    path = write(tmp_path, "run.yaml", "train: {num_steps: 7, learning_rate: 2e-4}\nseed: 3\n")
    config = load_config(path, ["train.num_steps=9"])
    assert (config.train.num_steps, config.train.learning_rate, config.seed) == (9, 2e-4, 3)


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", ".1e-2", "0.001", "1e-03"])
def test_a_number_may_be_written_in_every_usual_way(text: str) -> None:
    assert load_config(None, [f"train.learning_rate={text}"]).train.learning_rate == 0.001


def test_text_that_looks_a_little_like_a_number_stays_text() -> None:
    assert load_config(None, ["run_dir=1e-run"]).run_dir == Path("1e-run")


def test_a_file_lies_over_its_bases_and_a_later_base_over_an_earlier(tmp_path: Path) -> None:
    write(tmp_path, "model/a.yaml", "model: {vision_layers: 1, text_layers: 1, fusion_layers: 1}\n")
    write(tmp_path, "model/b.yaml", "base: a.yaml\nmodel: {text_layers: 2, fusion_layers: 2}\n")
    path = write(tmp_path, "pretrain/c.yaml", "base: [../model/b.yaml]\nmodel: {fusion_layers: 3}\n")
    model = load_config(path, []).model
    assert (model.vision_layers, model.text_layers, model.fusion_layers) == (1, 2, 3)


def test_a_base_that_leads_back_to_its_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "base: b.yaml\n")
    faults = faults_of(write(tmp_path, "b.yaml", "base: a.yaml\n"))
    assert "its own `base`" in faults[0]


def test_one_word_for_recompute_can_still_be_overridden_for_one_stack(tmp_path: Path) -> None:
    path = write(tmp_path, "run.yaml", "model: {recompute: full}\n")
    recompute = load_config(path, ["model.recompute.text=none"]).model.recompute
    assert (recompute.vision, recompute.text, recompute.fusion) == ("full", "none", "full")


def test_a_section_with_all_its_lines_commented_out_says_nothing(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "run.yaml", "train:\n  # num_steps: 5\n"), []) == RunConfig()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("model.vision_layer=3", "model.vision_layers"),
        ("learning_rate=1", "train.learning_rate"),
        ("model.num_steps=1", "train.num_steps"),
        ("run_dri=x", "run_dir"),
        ("itc.pool=4", "itm.pool_size"),
        ("zero.stag=1", "zero.stage"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(given: str, meant: str) -> None:
    assert faults_of(None, given) == (f"{given.partition('=')[0]} is unknown; did you mean {meant}?",)


def test_an_unknown_section_is_refused_once_with_the_nearest_section() -> None:
    assert faults_of(None, "trian={num_steps: 1, warmup_steps: 2}") == ("trian is unknown; did you mean train?",)


def test_an_unknown_key_like_nothing_known_is_refused_without_a_guess() -> None:
    assert faults_of(None, "qqq=1") == ("qqq is unknown",)


def test_faults_of_all_sections_come_in_one_message(tmp_path: Path) -> None:
    path = write(tmp_path, "run.yaml", "model: {vision_layer: 3, num_heads: 0}\nzero: {stage: 4}\n")
    message = "\n".join(faults_of(path, "train.num_steps=many", "precision=fp8", "nonsense"))
    for words in (
        "model.vision_layer is unknown",
        "model.num_heads is 0; wanted at least 1",
        "zero.stage is 4; wanted one of 1, 2 or 3",
        "train.num_steps is 'many'; wanted a whole number",
        "precision is 'fp8'; wanted one of 'fp32', 'bf16' or 'auto'",
        "'nonsense' is not an override",
    ):
        assert words in message
    assert "pydantic" not in message and "validation" not in message


def test_the_message_opens_with_what_it_means_and_lists_one_fault_a_line() -> None:
    message = str(ConfigError(["one", "two"]))
    assert message == "this run cannot start:\n  - one\n  - two"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model=3", "model is 3; wanted a section"),
        ("seed.x=2", "seed is {'x': 2}; wanted a whole number"),
        ("data.flip=perhaps", "data.flip is 'perhaps'; wanted true or false"),
        ("data.train=[{shards: a, weigth: 1}]", "data.train.0.weigth is '1'; wanted nothing of that name"),
        ("data.train={weight: 2}", "data.train.0 is {'weight': '2'}, which has no shards"),
        ("data={train: [{shards: 3}]}", "data.train.0.shards is 3; wanted a list"),
        ("loss.mlm=.nan", "loss.mlm is nan; wanted"),
        ("train.learning_rate=0", "train.learning_rate is 0; wanted more than 0.0"),
        ("train.num_steps=1.5", "train.num_steps is 1.5; wanted a whole number"),
        ("seed=*x", "put it in quotes"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_in_plain_words(override: str, words: str) -> None:
    (fault,) = faults_of(None, override)
    assert words in fault


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "seed: 1\nseed: 2\n", "base: 3"])
def test_a_file_that_is_no_config_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    assert "bad.yaml" in faults_of(write(tmp_path, "bad.yaml", text))[0]


def test_a_missing_file_is_refused_by_its_name(tmp_path: Path) -> None:
    assert "nowhere.yaml cannot be read" in faults_of(tmp_path / "nowhere.yaml")[0]


def test_one_place_of_data_needs_no_list() -> None:
    assert load_config(None, ["data.train=shards/{000..009}.tar"]).data.train == ("shards/{000..009}.tar",)


@pytest.mark.parametrize(
    "overrides", [[], ["train.epsilon=1e-12", "data.train=[a, b]", "model.recompute=full", "seed=5"]]
)
def test_a_dumped_config_loads_back_equal(tmp_path: Path, overrides: list[str]) -> None:
    config = load_config(None, overrides)
    assert load_config(write(tmp_path, "dumped.yaml", dump_config(config)), []) == config


def test_every_knob_of_the_schema_is_known_by_its_dotted_name() -> None:
    names = knobs()
    assert {"run_dir", "model.recompute.vision", "itc.initial_temperature"} <= set(names)
    assert len(names) == len(set(names))


SHIPPED = sorted(path for verb in ("pretrain", "finetune") for path in CONFIGS.glob(f"{verb}/*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_each_shipped_config_is_read_and_opens_with_its_command(path: Path) -> None:
    load_config(path, [])
    command = f"mmtrain/{path.parent.name}.py --config configs/{path.parent.name}/{path.name}"
    assert path.read_text().startswith("# deepspeed ") and command in path.read_text()


def test_a_task_presets_what_the_run_does_not_say(tmp_path: Path) -> None:
    loss = load_config(None, ["task.name=caption"]).loss
    assert (loss.mlm, loss.itc, loss.of_itm, loss.of_lm) == (0.0, 0.0, 0.0, 1.0)
    written = write(tmp_path, "own.yaml", "loss: {itc: 0.5}\ntask: {name: caption, num_beams: 7}")
    own = load_config(written, ["lm.label_smoothing=0.3"])
    assert (own.loss.itc, own.loss.of_lm, own.task.num_beams, own.lm.label_smoothing) == (0.5, 1.0, 7, 0.3)
    assert load_config(write(tmp_path, "again.yaml", dump_config(own)), []) == own


def test_what_lies_under_a_config_gives_way_to_its_file_and_its_words(tmp_path: Path) -> None:
    under = {"model": {"text_layers": 5, "vision_layers": 6, "fusion_layers": 7}}
    file = write(tmp_path, "over.yaml", "model: {vision_layers: 3}")
    model = read_config(file, ["model.fusion_layers=4"], under)[0].model
    assert (model.text_layers, model.vision_layers, model.fusion_layers) == (5, 3, 4)


def test_the_content_of_a_file_of_answers_stands_in_the_config(tmp_path: Path) -> None:
    lines = write(tmp_path, "answers.txt", "yes\n two words \n\nno\n")
    listed = write(tmp_path, "answers.json", '["yes", "two words", "no"]')
    for path in (lines, listed):
        config = load_config(None, ["task.name=vqa", "task.answering=choose", f"task.answers={path}"])
        assert config.task.answers == ("yes", "two words", "no")
        assert (config.loss.of_lm, config.loss.answer) == (0.0, 1.0)
        again = write(tmp_path, "config.yaml", dump_config(config))
        assert load_config(again, []) == config


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.txt", "yes\nno\nyes\n", "has 'yes' twice"),
        ("a.txt", "\n", "is empty"),
        ("a.json", "{}", "no list of texts"),
        ("a.json", "[", "no list of answers"),
        ("a.json", "[1]", "no list of texts"),
    ],
)
def test_a_file_that_is_no_list_of_answers_is_one_fault(tmp_path: Path, name: str, content: str, sentence: str) -> None:
    path = write(tmp_path, name, content)
    (fault,) = faults_of(None, f"task.answers={path}")
    assert fault.startswith(f"task.answers is {str(path)!r}") and sentence in fault
    (fault,) = faults_of(None, f"task.answers={tmp_path}/none.txt")
    assert "cannot be read: No such file" in fault


@pytest.mark.parametrize(
    ("knob", "values"),
    [
        ("task.length_penalty", ("1e308", "-1e308", ".nan", ".inf", "10.5")),
        ("task.temperature", ("1e300", "-1", ".nan")),
        ("task.num_beams", ("0", "100000")),
        ("train.num_steps", ("0", "9" * 23)),
        ("seed", ("-1", "9" * 23)),
    ],
)
def test_a_number_beyond_its_range_is_one_fault(knob: str, values: tuple[str, ...]) -> None:
    for value in values:
        (fault,) = faults_of(None, f"{knob}={value}")
        assert fault.startswith(f"{knob} is ") and "; wanted " in fault
