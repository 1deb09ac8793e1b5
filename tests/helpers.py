"""Ranks on this machine, and batches made by hand."""

import fcntl
import multiprocessing
import os
import queue
import random
import socket
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import IO, Any

RANK_TIMEOUT_SECONDS = 240.0
PORTS = range(20_000, 30_000)
_port_locks: list[IO[str]] = []
PRELOADED = ("mmtrain.engine.zero", "mmtrain.engine.build")  # what ranks would each take seconds to import


def free_port() -> int:
    """A port of 127.0.0.1 that stays this process's as far as tests go: no other test process is given it.

    It lies below the range from which the kernel takes ports of its own (ip_local_port_range), so no connection of
    anybody gets it between this call and its use.
    """
    folder = Path(tempfile.gettempdir()) / "mmtrain-test-ports"
    folder.mkdir(exist_ok=True)
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        lock = open(folder / str(port), "a")  # noqa: SIM115 - held until this process ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:  # another test's, or a server's that is no test
            lock.close()
            continue
        _port_locks.append(lock)
        return port
    raise RuntimeError("no port is free")


def fresh_processes() -> BaseContext:
    """Processes that begin with nothing but imported modules: forked off one that did nothing else.

    Where there is a GPU they begin with nothing: whoever asks for GPUs, as DeepSpeed does when imported, may not fork.
    """
    import torch

    if torch.cuda.is_available():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def _rank(function: Callable[..., Any], args: tuple, environment: dict[str, str], answers: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)
    rank = int(environment["RANK"])
    try:
        import torch

        from mmtrain.parallel.launch import hush_expected_warnings

        hush_expected_warnings()
        torch.set_num_threads(1)
        answers.put((rank, function(*args), None))
    except BaseException:
        answers.put((rank, None, traceback.format_exc()))


def run_ranks(
    world_size: int, function: Callable[..., Any], *args: Any, timeout_seconds: float = RANK_TIMEOUT_SECONDS
) -> list[Any]:
    """What `function(*args)` returns on each of `world_size` fresh ranks; no process outlives the call.

    RuntimeError with the rank's own traceback as soon as one fails, or after `timeout_seconds`.
    """
    context = fresh_processes()
    answers, shared = context.Queue(), {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared |= {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size), "OMP_NUM_THREADS": "1"}
    ranks = [
        context.Process(
            target=_rank,
            args=(function, args, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, answers),
        )
        for rank in range(world_size)
    ]
    for process in ranks:
        process.start()
    results: dict[int, Any] = {}
    deadline = time.monotonic() + timeout_seconds
    try:
        while len(results) < world_size:
            try:
                rank, result, failure = answers.get(timeout=1.0)
            except queue.Empty:
                gone = [number for number, process in enumerate(ranks) if process.exitcode and number not in results]
                if gone or time.monotonic() > deadline:
                    raise RuntimeError(f"ranks {gone or 'all'} died or hung; answered: {sorted(results)}") from None
                continue
            if failure:
                raise RuntimeError(f"rank {rank} failed:\n{failure}")
            results[rank] = result
    finally:
        for process in ranks:
            process.join(timeout=5.0 if len(results) == world_size else 0.0)
            process.kill()
            process.join()
    return [results[rank] for rank in range(world_size)]


VOCAB_SIZE = 64
NUM_ANSWERS = 5
FIRST_WORD_ID = 5


def made_batch(places: range, *, image_size: int = 16, max_text_length: int = 12, seed: int = 0) -> Any:
    """A Batch of the samples at `places`: 1 to max - 2 words; every 7th is without image, every 11th without text."""
    import torch

    from mmtrain.records import IGNORED_LABEL, Batch

    rows = [_made_sample(place, image_size, max_text_length, seed) for place in places]
    columns = (list(column) for column in zip(*rows, strict=True))
    images, ids, masked, labels, lengths, has_image, has_text, draws = columns
    assert IGNORED_LABEL < 0
    return Batch(
        images_BCHW=torch.stack(images),
        text_ids_BT=torch.stack(ids),
        masked_ids_BT=torch.stack(masked),
        masked_labels_BT=torch.stack(labels),
        text_lengths_B=torch.tensor(lengths),
        prompt_lengths_B=torch.ones(len(places), dtype=torch.int64),
        prefix_lengths_B=torch.ones(len(places), dtype=torch.int64),
        has_image_B=torch.tensor(has_image),
        has_text_B=torch.tensor(has_text),
        image_ids_B=torch.tensor([place * 2 + 1 for place in places]),
        caption_ids_B=torch.tensor([place // 3 for place in places]),  # three neighbours share a caption id
        draws_B2=torch.stack(draws),
        places_B=torch.tensor(list(places)),
        answer_ids_BK=torch.tensor([[place % NUM_ANSWERS, (place + 1) % NUM_ANSWERS, -1] for place in places]),
        answer_scores_BK=torch.tensor([[1.0, 0.3, 0.0] for _ in places]),
    )


def _made_sample(place: int, image_size: int, max_text_length: int, seed: int) -> tuple:
    import torch

    from mmtrain.records import IGNORED_LABEL

    generator = torch.Generator().manual_seed(seed * 100_003 + place)
    has_image, has_text = place % 7 != 6, place % 11 != 10
    num_words = 1 + int(torch.randint(0, max_text_length - 2, (), generator=generator))
    words = torch.randint(FIRST_WORD_ID, VOCAB_SIZE, (num_words,), generator=generator)
    ids = torch.zeros(max_text_length, dtype=torch.int64)
    ids[: num_words + 2] = torch.cat([torch.tensor([2]), words, torch.tensor([3])])
    is_masked = torch.zeros(max_text_length, dtype=torch.bool)
    is_masked[1 : num_words + 1] = torch.rand(num_words, generator=generator) < 0.3
    image = torch.randint(0, 256, (3, image_size, image_size), generator=generator, dtype=torch.uint8)
    draws = torch.rand(2, generator=generator, dtype=torch.float64)
    if not has_text:
        ids, is_masked, num_words = torch.zeros_like(ids), torch.zeros_like(is_masked), -2
    labels = torch.where(is_masked, ids, IGNORED_LABEL)
    return image * has_image, ids, ids.masked_fill(is_masked, 4), labels, num_words + 2, has_image, has_text, draws


def tiny_plan(**sections: Any) -> Any:
    """A RunConfig that a second trains: two layers a stack, 32 wide; `sections` replace whole sections' fields."""
    from mmtrain.config.schema import RunConfig

    base: dict[str, Any] = {
        "precision": "fp32",
        "train": {
            "num_steps": 10,
            "global_batch_size": 16,
            "micro_batch_size": 8,
            "learning_rate": 1e-2,
            "warmup_steps": 1,
            "gradient_clipping": 0.5,
        },
        "itm": {"pool_size": 4},
        "model": {
            "hidden_size": 32,
            "num_heads": 4,
            "vision_layers": 2,
            "text_layers": 2,
            "fusion_layers": 2,
            "image_size": 16,
            "patch_size": 8,
            "max_text_length": 12,
            "embedding_size": 16,
        },
    }
    for name, given in sections.items():
        base[name] = {**base.get(name, {}), **given} if isinstance(given, dict) else given
    return RunConfig.model_validate(base)


def global_batch_of(step: int, plan: Any, dp: int, dp_rank: int) -> list[Any]:
    """This rank's micro-batches of global batch `step` (from 0) of the samples made by hand."""
    size, together = plan.train.micro_batch_size, plan.train.micro_batch_size * dp
    first = step * plan.train.global_batch_size + dp_rank * size
    starts = range(first, first + plan.train.global_batch_size, together)
    shape = {"image_size": plan.model.image_size, "max_text_length": plan.model.max_text_length}
    return [made_batch(range(start, start + size), **shape) for start in starts]


def train_steps(
    plan: Any, num_steps: int, place: Any = None, change: Callable[[Any], Any] | None = None, holder: Any = None
) -> list[Any]:
    """Reports of `num_steps` optimizer steps on the samples made by hand, or a change of them, from first weights.

    `holder` of the optimizer's states is the one a run would take unless given.
    """
    from mmtrain.engine.build import build_engine, join
    from mmtrain.parallel.launch import read_launch

    place = place or join(plan, read_launch())
    engine = build_engine(plan, place, num_pieces=VOCAB_SIZE, holder=holder)
    grid, coord = place.groups.grid, place.groups.coord
    batches = (global_batch_of(step, plan, grid.dp, coord.dp) for step in range(num_steps))
    return [engine.step([change(batch) for batch in several] if change else several) for several in batches]
