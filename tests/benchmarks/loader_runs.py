"""One loader, run once: `python loader_runs.py NAME DATA SAMPLES WORKERS` prints what it cost as JSON.

Imports what the loader needs and nothing else of this repository but its decoder, so that a peer runs in an
environment of its own. Every loader makes random resized crops of 224 pixels (0.9 to 1 of the area) and hands
over batches of images and captions; the first SAMPLES // 4 samples are not measured.
"""

import json
import os
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

SIZE, MIN_SHARE = 224, 0.9
BATCH = 64
SHUFFLED = 1000  # samples in the buffer of loaders that shuffle in one
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenCLIP's


def show(content: bytes) -> torch.Tensor:
    """Our decoder: uint8 [3, 224, 224]."""
    from mmtrain.data.augment import random_crop
    from mmtrain.data.images import decode

    return random_crop(decode(content), (SIZE, SIZE), MIN_SHARE, NUMBERS)


def show_pillow(content: bytes) -> torch.Tensor:
    """The usual recipe: Pillow, bicubic, float32, normalized in the worker."""
    import io

    from PIL import Image

    image = Image.open(io.BytesIO(content)).convert("RGB")
    left, top, width, height = _box(*image.size)
    image = image.crop((left, top, left + width, top + height)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div_(255)
    return pixels.sub_(torch.tensor(MEAN)[:, None, None]).div_(torch.tensor(STD)[:, None, None])


NUMBERS = np.random.default_rng(0)


def _box(width: int, height: int) -> tuple[int, int, int, int]:
    area, aspect = width * height * NUMBERS.uniform(MIN_SHARE, 1), np.exp(NUMBERS.uniform(np.log(3 / 4), np.log(4 / 3)))
    crop_width = min(width, round((area * aspect) ** 0.5))
    crop_height = min(height, round((area / aspect) ** 0.5))
    left, top = NUMBERS.integers(width - crop_width + 1), NUMBERS.integers(height - crop_height + 1)
    return int(left), int(top), crop_width, crop_height


def read_pairs(folder: Path) -> list[tuple[bytes, str]]:
    """JPEG and caption of every sample, in the order of the tars."""
    pairs = []
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar}
        keys = dict.fromkeys(name.partition(".")[0] for name in files)
        pairs += [(files[f"{key}.jpg"], files[f"{key}.txt"].decode()) for key in keys]
    return pairs


def ours(data: Path, num_workers: int) -> Iterator[int]:
    """Our stream, which tokenizes and masks the captions as well."""
    from mmtrain.config.schema import DataConfig, MlmConfig, ModelConfig, TrainConfig
    from mmtrain.data.stream import Stream

    config = DataConfig(
        train=str(data), tokenizer=data / "tokenizer.model", num_workers=num_workers, min_crop_share=MIN_SHARE
    )
    train = TrainConfig(global_batch_size=BATCH, micro_batch_size=BATCH)
    stream = Stream(config, ModelConfig(image_size=SIZE, patch_size=16), train, MlmConfig(), seed=0)
    while True:
        (batch,) = stream.take(1)
        yield len(batch.images_BCHW)


def _webdataset(data: Path, num_workers: int, decoder: Callable[[bytes], torch.Tensor]) -> Iterator[int]:
    import webdataset

    shards = [str(shard) for shard in sorted(data.glob("*.tar"))]
    pipeline = (
        webdataset.WebDataset(shards * 50, shardshuffle=100)
        .shuffle(SHUFFLED)
        .to_tuple("jpg", "txt")
        .map_tuple(decoder, bytes.decode)
        .batched(BATCH, partial=False)
    )
    for images, _ in webdataset.WebLoader(pipeline, batch_size=None, num_workers=num_workers):
        yield len(images)


def webdataset_pillow(data: Path, num_workers: int) -> Iterator[int]:
    """webdataset as OpenCLIP chains it."""
    return _webdataset(data, num_workers, show_pillow)


def webdataset_ours(data: Path, num_workers: int) -> Iterator[int]:
    """webdataset given our decoder."""
    return _webdataset(data, num_workers, show)


def energon(data: Path, num_workers: int) -> Iterator[int]:
    """megatron-energon given our decoder."""
    from megatron.energon import (
        Cooker,
        DefaultTaskEncoder,
        WorkerConfig,
        basic_sample_keys,
        get_savable_loader,
        get_train_dataset,
        stateless,
    )

    @stateless
    def cook(sample: dict) -> dict:
        return {**basic_sample_keys(sample), "image": show(sample["jpg"]), "text": sample["txt"]}

    class Encoder(DefaultTaskEncoder):
        cookers = [Cooker(cook)]
        decoder = None

        def batch(self, samples: list) -> Any:
            return torch.stack([sample["image"] for sample in samples]), [sample["text"] for sample in samples]

    worker = WorkerConfig(rank=0, world_size=1, num_workers=num_workers)
    dataset = get_train_dataset(
        data.parent / f"{data.name}-energon",
        worker_config=worker,
        batch_size=BATCH,
        shuffle_buffer_size=SHUFFLED,
        max_samples_per_sequence=100,
        task_encoder=Encoder(),
    )
    for images, _ in get_savable_loader(dataset):
        yield len(images)


def mosaic(data: Path, num_workers: int) -> Iterator[int]:
    """MosaicML streaming (MDS) given our decoder."""
    _stand_in_for_torchvision()
    from streaming import MDSWriter, StreamingDataset

    folder = data.parent / f"{data.name}-mds"
    if not (folder / "index.json").exists():
        with MDSWriter(out=str(folder), columns={"jpg": "bytes", "txt": "str"}) as writer:
            for image, caption in read_pairs(data):
                writer.write({"jpg": image, "txt": caption})

    class Pairs(StreamingDataset):
        def __getitem__(self, number: int) -> Any:
            sample = super().__getitem__(number)
            return show(sample["jpg"]), sample["txt"]

    while True:
        dataset = Pairs(local=str(folder), shuffle=True, batch_size=BATCH)
        for images, _ in torch.utils.data.DataLoader(dataset, batch_size=BATCH, num_workers=num_workers):
            yield len(images)


def _stand_in_for_torchvision() -> None:
    """MDS asks torchvision for names alone; where it does not fit the torch that is there, empty ones will do."""
    import importlib.machinery
    import types

    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for name in [module for module in sys.modules if module.startswith("torchvision")]:
            del sys.modules[name]
        for name in (
            "torchvision",
            "torchvision.datasets",
            "torchvision.transforms",
            "torchvision.transforms.functional",
        ):
            module = types.ModuleType(name)
            module.__spec__ = importlib.machinery.ModuleSpec(name, None)
            module.VisionDataset, module.to_tensor = type("VisionDataset", (), {}), None
            sys.modules[name] = module
        sys.modules["torchvision"].datasets = sys.modules["torchvision.datasets"]
        sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]


def litdata(data: Path, num_workers: int) -> Iterator[int]:
    """LitData given our decoder."""
    from litdata import StreamingDataLoader, StreamingDataset, optimize

    folder = data.parent / f"{data.name}-litdata"
    if not (folder / "index.json").exists():
        pairs = read_pairs(data)
        optimize(
            fn=pairs.__getitem__,
            inputs=list(range(len(pairs))),
            output_dir=str(folder),
            chunk_bytes="32MB",
            num_workers=1,
        )

    class Pairs(StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            image, caption = super().__getitem__(index)
            return show(image), caption

    settings = {"batch_size": BATCH, "num_workers": num_workers, "multiprocessing_context": "fork"}
    while True:
        for images, _ in StreamingDataLoader(Pairs(str(folder), shuffle=True), **settings):
            yield len(images)


def bare(data: Path, num_workers: int) -> Iterator[int]:
    """Bare libjpeg-turbo: the same files decoded from memory and thrown away, in as many processes."""
    import multiprocessing

    import simplejpeg

    images = [image for image, _ in read_pairs(data)]
    Random(0).shuffle(images)
    answers = multiprocessing.get_context("fork").SimpleQueue()

    def decode_all(first: int) -> None:
        while True:
            for start in range(first, len(images) - BATCH, num_workers * BATCH):
                for image in images[start : start + BATCH]:
                    simplejpeg.decode_jpeg(image, "RGB")
                answers.put(BATCH)

    for number in range(num_workers):
        multiprocessing.get_context("fork").Process(target=decode_all, args=(number * BATCH,), daemon=True).start()
    while True:
        yield answers.get()


class _Constant(torch.utils.data.Dataset):
    """A batch of the same pixels again and again: what is left is the hand-over."""

    def __init__(self) -> None:
        self.images = torch.zeros(BATCH, 3, SIZE, SIZE, dtype=torch.uint8)

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.images[number % BATCH]


def hand_over_torch(data: Path, num_workers: int) -> Iterator[int]:
    """Ready samples through torch's DataLoader."""
    for images in torch.utils.data.DataLoader(_Constant(), batch_size=BATCH, num_workers=num_workers):
        yield int(images[-1, -1, -1, -1]) + len(images)


def hand_over_ours(data: Path, num_workers: int) -> Iterator[int]:
    """Ready samples through our ring."""
    from mmtrain.data.samples import Sample
    from mmtrain.data.slot import Layout, Slot
    from mmtrain.data.workers import Readers

    ids = np.arange(20)
    image = torch.zeros(SIZE, SIZE, 3, dtype=torch.uint8).permute(2, 0, 1)
    sample = Sample(image, ids, ids, ids, 1, 2, np.zeros(2))

    def read(number: int, slot: Slot, mark: Callable[[int], None]) -> None:
        slot.fill(np.arange(BATCH))
        for row in range(BATCH):
            mark(row)
            slot.put(row, sample)

    readers = Readers(read, Layout(BATCH, SIZE, 77), first=0, num_workers=num_workers, per_step=1, name_of=str)
    for batch, _ in readers.batches(trim=True):
        yield int(batch.images_BCHW[-1, -1, -1, -1]) + len(batch.images_BCHW)


LOADERS = (
    ours, webdataset_pillow, webdataset_ours, energon, mosaic, litdata, bare, hand_over_torch, hand_over_ours
)  # fmt: skip


def _cpu_seconds() -> float:
    """CPU time of this process and of all that it started, those that have ended included."""
    import psutil

    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    times = [process.cpu_times() for process in family]
    return sum(sum(each[:4]) for each in times)  # user and system, its own and that of children it waited for


def main() -> None:
    """Run the loader that is named and print wall and CPU microseconds per sample."""
    name, data, num_samples, num_workers = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    loader = {each.__name__: each for each in LOADERS}[name](data, num_workers)
    seen = 0
    while seen < num_samples // 4:
        seen += next(loader)
    seen, started, cpu = 0, time.perf_counter(), _cpu_seconds()
    while seen < num_samples:
        seen += next(loader)
    wall, cpu = time.perf_counter() - started, _cpu_seconds() - cpu
    print(json.dumps({"wall_us": wall / seen * 1e6, "cpu_us": cpu / seen * 1e6}), flush=True)
    sys.stdout.flush()
    import psutil

    for process in psutil.Process().children(recursive=True):
        process.kill()
    os._exit(0)


if __name__ == "__main__":
    main()
