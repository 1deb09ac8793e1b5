"""A model larger than half of the memory that the program may take is exported: it goes through tensor by tensor."""

import re
import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch

from mmtrain.checkpoint.changes import Changes
from mmtrain.checkpoint.keeper import Keeper
from mmtrain.checkpoint.manifest import Manifest
from mmtrain.config.schema import RunConfig
from mmtrain.data.tokenizer import Tokenizer
from mmtrain.deploy.export import twin_config
from mmtrain.hf.names import in_run, shapes
from mmtrain.parallel.slices import Slice
from tests.doors.launched import run_program
from tests.unit.data.made import caption_of, train_tokenizer

MODEL = {
    "hidden_size": 1024, "num_heads": 16, "vision_layers": 24, "text_layers": 12, "fusion_layers": 12,
    "image_size": 224, "patch_size": 16, "max_text_length": 64, "embedding_size": 256,
}  # fmt: skip
MEBIBYTE = 2**20
# What runs under the limit. VmHWM is its own peak; rusage would count what its parent held when it started it.
PROGRAM = """
import pathlib, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
from mmtrain.export import main
code = main(sys.argv[2:])
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
print("peak_kib", status["VmHWM"].split()[0])
sys.exit(code)
"""


class Large:
    """An engine and a stream, as far as a keeper knows them, that hold a large model's weights."""

    def __init__(self, wanted: dict[str, tuple[int, ...]]) -> None:
        self.wanted = wanted

    def kept(self) -> Iterator[tuple[Slice, torch.Tensor]]:
        for number, (name, shape) in enumerate(self.wanted.items()):
            yield Slice(in_run(name), shape, (0,) * len(shape), shape), torch.full(shape, float(number))

    def progress(self) -> dict[str, int]:
        return {}

    def state(self) -> dict[str, Any]:
        return {}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_model_larger_than_half_the_memory_limit_is_exported(tmp_path: Path) -> None:
    train_tokenizer(tmp_path / "tokenizer.model", [caption_of(number) for number in range(200)])
    tokenizer = Tokenizer(tmp_path / "tokenizer.model")
    plan = RunConfig(model=MODEL, checkpoint={"asynchronous": False})
    wanted = shapes(twin_config(plan, tokenizer, torch.float32))
    num_bytes = 4 * sum(prod(shape) for shape in wanted.values())
    here = Manifest(0, plan.model_dump(mode="json"), {}, tokenizer.sha256, tokenizer.num_pieces)
    keeper, large = Keeper(tmp_path, here, plan.checkpoint, Changes({})), Large(wanted)
    keeper.save(1, large, large)
    keeper.finish()

    limit = int(1.7 * num_bytes)
    ended = run_program([sys.executable, "-c", PROGRAM, limit, tmp_path], limit_seconds=300)
    assert ended.code == 0, ended.said
    peak = int(re.search(r"peak_kib (\d+)", ended.said)[1]) * 1024
    print(
        f"{num_bytes / MEBIBYTE:.0f} MiB of weights under a limit of {limit / MEBIBYTE:.0f} MiB of address space: peak "
        f"{peak / MEBIBYTE:.0f} MiB resident"
    )
    assert peak < num_bytes / 2
    assert (tmp_path / "export/model.safetensors").stat().st_size > num_bytes
