"""`mmdata synth`: what is held out, and bytes that follow from the seed alone."""

import json
from pathlib import Path

import pytest

from data_tools.scenes import Scene, SceneRules, Thing, meaning
from data_tools.synthetic import SynthSettings, synthesize
from mmtrain.data.index import DataError, find_shards, open_index, read_manifest, read_part

SETTINGS = SynthSettings(num_train=700, num_heldout=60, seed=3, rules=SceneRules((2, 3)), samples_per_shard=300)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("synth")
    synthesize(folder, SETTINGS, processes=1)
    return folder


def read(folder: Path) -> list[tuple[str, dict]]:
    """Captions and metadata of a folder of shards."""
    pairs = []
    for shard in find_shards([str(folder)]):
        for parts in open_index(shard).parts:
            assert set(parts) == {"jpg", "txt", "json"}
            pairs.append((read_part(shard, parts["txt"]).decode(), json.loads(read_part(shard, parts["json"]))))
    return pairs


def scene_of(said: dict) -> Scene:
    things = (Thing(**{**thing, "cell": tuple(thing["cell"])}) for thing in said["scene"])
    return Scene(SETTINGS.rules.grid, tuple(things))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_splits_have_the_samples_asked_for_in_shards_of_the_size_asked_for(made):
    assert [shard.num_samples for shard in read_manifest(made / "train").shards] == [300, 300, 100]
    assert [shard.num_samples for shard in read_manifest(made / "heldout").shards] == [60]
    assert len(read(made / "train")) == 700 and len(read(made / "heldout")) == 60


def test_no_held_out_scene_caption_or_twin_occurs_in_training(made):
    train, heldout = read(made / "train"), read(made / "heldout")
    captions = {caption for caption, _ in train}
    assert not captions & {caption for caption, _ in heldout}
    assert not captions & {said["twin"]["caption"] for _, said in heldout}
    assert not {meaning(scene_of(said)) for _, said in train} & {meaning(scene_of(said)) for _, said in heldout}


def test_a_small_world_is_split_without_overlap_too(tmp_path):
    settings = SynthSettings(num_train=3000, num_heldout=3000, samples_per_shard=3000)
    synthesize(tmp_path, settings, processes=1)
    train, heldout = read(tmp_path / "train"), read(tmp_path / "heldout")
    assert not {meaning(scene_of(said)) for _, said in train} & {meaning(scene_of(said)) for _, said in heldout}
    assert not {caption for caption, _ in train} & {caption for caption, _ in heldout}
    assert len({meaning(scene_of(said)) for _, said in heldout}) == 3000


def test_held_out_captions_are_distinct_and_each_has_a_twin_of_every_kind_in_turn(made):
    heldout = read(made / "heldout")
    assert len({caption for caption, _ in heldout}) == len(heldout)
    assert all(said["twin"]["caption"] != caption for caption, said in heldout)
    assert {said["twin"]["kind"] for _, said in heldout} == {"color", "shape", "size", "place"}
    assert all(len(said["scene"]) >= 2 for _, said in heldout)
    assert not any("twin" in said for _, said in read(made / "train"))


def test_ids_are_equal_exactly_where_the_captions_are(made):
    pairs = read(made / "train") + read(made / "heldout")
    assert len({said["caption_id"] for _, said in pairs}) == len({caption for caption, _ in pairs})
    assert len({said["image_id"] for _, said in pairs}) == len(pairs)


def test_the_bytes_do_not_depend_on_the_number_of_processes(made, tmp_path):
    synthesize(tmp_path, SETTINGS, processes=2)
    assert files(tmp_path) == files(made)


def test_another_seed_gives_other_scenes(made, tmp_path):
    synthesize(tmp_path, SynthSettings(num_train=50, num_heldout=0, seed=4), processes=1)
    assert {caption for caption, _ in read(tmp_path / "train")} != {caption for caption, _ in read(made / "train")[:50]}
    assert not (tmp_path / "heldout").exists()


def test_more_held_out_scenes_than_there_are_is_refused():
    with pytest.raises(DataError, match="--num-heldout"):
        synthesize(Path("never"), SynthSettings(num_train=1, num_heldout=50_000), processes=1)


def test_shards_that_lie_there_are_replaced_only_when_asked(tmp_path):
    few = SynthSettings(num_train=20, num_heldout=5, samples_per_shard=10)
    synthesize(tmp_path, SynthSettings(num_train=40, num_heldout=5, samples_per_shard=10), processes=1)
    with pytest.raises(DataError, match="--overwrite"):
        synthesize(tmp_path, few, processes=1)
    synthesize(tmp_path, few, processes=1, overwrite=True)
    assert len(read(tmp_path / "train")) == 20
