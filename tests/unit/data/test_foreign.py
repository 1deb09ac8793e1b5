"""Our shards in the hands of others, and theirs in ours: the real packages, skipped where they are not installed."""

import importlib.util
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import webdataset

from data_tools.pack import Sample, write_shard
from mmtrain.data.index import open_index, read_part
from mmtrain.data.manifest import write_manifest
from tests.unit.data.made import caption_of, files_of, open_stream, picture

NUM_SAMPLES = 24
# img2dataset pins versions that do not fit ours: here a python of an environment of its own may be named.
IMG2DATASET = os.environ.get("IMG2DATASET_PYTHON", sys.executable)


def is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # nor what it is a part of
        return False


def needs(package: str, why: str) -> pytest.MarkDecorator:
    """Skip where `package` is not installed, and say why it need not be."""
    return pytest.mark.skipif(not is_installed(package), reason=f"{package} is not installed: {why}")


@pytest.fixture(scope="module")
def our_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards as `mmdata` writes them, with indexes and a manifest."""
    folder = tmp_path_factory.mktemp("ours")
    samples = [Sample(f"{number:08d}", files_of(number)) for number in range(NUM_SAMPLES)]
    entries = [
        write_shard(folder / f"set-{start:06d}.tar", samples[start : start + 10]) for start in range(0, NUM_SAMPLES, 10)
    ]
    write_manifest(folder, entries, source=None, settings=None, statistics=None)
    return folder


def tars(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.glob("*.tar"))]


def test_webdataset_reads_our_shards(our_shards: Path):
    read = list(webdataset.WebDataset(tars(our_shards), shardshuffle=False))
    assert [sample["__key__"] for sample in read] == [f"{number:08d}" for number in range(NUM_SAMPLES)]
    for number, sample in enumerate(read):
        assert {kind: sample[kind] for kind in ("jpg", "txt", "json")} == files_of(number)


@needs("datasets", "Hugging Face datasets is for those who use our shards elsewhere")
def test_hugging_face_datasets_reads_our_shards(our_shards: Path):
    import datasets

    read = datasets.load_dataset("webdataset", data_files=tars(our_shards), split="train", streaming=True)
    samples = list(read.cast_column("jpg", datasets.Image(decode=False)))
    assert [sample["txt"] for sample in samples] == [caption_of(number) for number in range(NUM_SAMPLES)]
    assert [sample["jpg"]["bytes"] for sample in samples] == [picture(number) for number in range(NUM_SAMPLES)]


@needs("megatron.energon", "megatron-energon is for those who use our shards elsewhere")
def test_energon_reads_our_shards(our_shards: Path):
    from megatron.energon import DefaultTaskEncoder, WorkerConfig, get_loader, get_val_dataset

    class Raw(DefaultTaskEncoder):
        decoder = None

        def batch(self, samples: list) -> list:
            return samples

    tool = Path(sys.executable).parent / "energon"
    options = ["--non-interactive", "--no-progress", "--split-ratio", "0,1,0", "--num-workers", "1"]
    fields = ["--sample-type", "CaptioningSample", "--field-map", '{"image": "jpg", "caption": "txt"}']
    subprocess.run([tool, "prepare", *options, *fields, our_shards], check=True, capture_output=True)
    config = WorkerConfig(rank=0, world_size=1, num_workers=0)
    dataset = get_val_dataset(our_shards, worker_config=config, batch_size=1, task_encoder=Raw())
    samples = [sample for batch in get_loader(dataset) for sample in batch]
    assert sorted(sample.caption.decode() for sample in samples) == sorted(caption_of(n) for n in range(NUM_SAMPLES))
    assert {bytes(sample.image) for sample in samples} == {picture(number) for number in range(NUM_SAMPLES)}


@pytest.mark.skipif(
    subprocess.run([IMG2DATASET, "-c", "import img2dataset"], capture_output=True).returncode != 0,
    reason="img2dataset is not installed: it needs an environment of its own, name its python in IMG2DATASET_PYTHON",
)
def test_shards_of_img2dataset_are_read(tmp_path: Path, tokenizer_path: Path):
    lines = ["url,caption"]
    for number in range(NUM_SAMPLES):
        path = tmp_path / f"{number}.png"
        path.write_bytes(picture(number, (40, 30), "PNG"))
        lines.append(f"file://{path},{caption_of(number)}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    code = (
        "import sys; from img2dataset import download\n"
        "if __name__ == '__main__': download(url_list=sys.argv[1], output_folder=sys.argv[2], input_format='csv', "
        "url_col='url', caption_col='caption', output_format='webdataset', image_size=32, number_sample_per_shard=10, "
        "processes_count=1, thread_count=2, enable_wandb=False)"
    )
    subprocess.run([IMG2DATASET, "-c", code, tmp_path / "list.csv", tmp_path / "out"], check=True, timeout=120)
    check_shards_of_img2dataset(tmp_path / "out", tokenizer_path)


def check_shards_of_img2dataset(folder: Path, tokenizer: Path) -> None:
    """What `img2dataset` wrote of the samples made by hand is read whole."""
    stream = open_stream(folder, tokenizer, max_bad_share=0.0)
    (batch, *_) = stream.take(4)
    assert batch.has_image_B.all() and batch.has_text_B.all()
    found = [open_index(Path(tar)) for tar in tars(folder)]
    captions = {read_part(index.path, parts["txt"]).decode() for index in found for parts in index.parts}
    assert captions == {caption_of(number) for number in range(NUM_SAMPLES)}
    stream.close()


@pytest.mark.parametrize("form", ["gnu", "ustar", "pax", "v7"])
def test_shards_of_gnu_tar_are_read(tmp_path: Path, tokenizer_path: Path, form: str):
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(16):
        for extension, content in files_of(number).items():
            (folder / f"k{number:03d}.{extension}").write_bytes(content)
    subprocess.run(["tar", f"--format={form}", "--sort=name", "-cf", tmp_path / "x.tar", "-C", folder, "."], check=True)
    stream = open_stream(tmp_path / "x.tar", tokenizer_path, max_bad_share=0.0)
    assert stream.order.num_samples == 16
    assert all(batch.has_image_B.all() and batch.has_text_B.all() for batch in stream.take(4))


def test_our_tars_are_listed_by_pythons_tarfile(our_shards: Path):
    with tarfile.open(tars(our_shards)[0]) as tar:
        assert [member.name for member in tar][:3] == ["00000000.jpg", "00000000.txt", "00000000.json"]
