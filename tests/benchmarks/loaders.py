"""`python -m tests.benchmarks.loaders`: our stream against other loaders, in one run, interleaved.

Every loader reads the same 4,000 JPEGs with two workers in a process of its own (see loader_runs.py); rounds go
through all of them in shuffled order. A peer whose package is not in this environment needs a python of another
one (--energon, --mosaic, --litdata); without it, it is left out, and the output says so.
"""

import argparse
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from random import Random
from statistics import median

import numpy as np
from PIL import Image

from mmtrain.data.augment import fit
from mmtrain.data.images import decode
from tests.benchmarks.loader_runs import read_pairs
from tests.benchmarks.small_photos import write_small_photos

ROOT = Path(__file__).parents[2]
NUM_SAMPLES, NUM_WORKERS, SIZE = 4000, 2, 224
PEERS = {"energon": "megatron.energon", "mosaic": "streaming", "litdata": "litdata"}  # loader -> its package
TARGETS = {  # loader -> how many times its cost ours should be below
    "webdataset_pillow": 3.5,
    "webdataset_ours": 1.25,
    "energon": 1.5,
    "mosaic": 1.5,
    "litdata": 1.1,
}
OWN = ("ours", "bare", "webdataset_pillow", "webdataset_ours", "hand_over_torch", "hand_over_ours")
RUN_SECONDS = 300
HAND_OVER_FACTOR = 4  # hand-overs are quick, and CPU time is counted in hundredths of a second


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; exit code 0 whatever they say."""
    words = _parser().parse_args(argv)
    data = write_small_photos(words.folder / "small", words.count)
    tokenizer = data / "tokenizer.model"
    if not tokenizer.exists():
        make = ["-m", "data_tools", "tokenizer", str(data), "--out", str(tokenizer), "--vocab-size", "80"]
        subprocess.run([sys.executable, *make], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    pythons = dict.fromkeys(OWN, sys.executable) | _peers(words, data)
    pythons = {name: python for name, python in pythons.items() if not words.only or name in words.only}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in pythons}
    for number in range(words.repeats):
        for name in Random(number).sample(sorted(pythons), len(pythons)):
            found[name].append(_run(name, pythons[name], data, words.samples))
            print(f"round {number + 1}: {name}: {_said(found[name][-1])}", file=sys.stderr, flush=True)
    _show(found)
    print(f"\nPSNR against Pillow's bicubic, {SIZE} px of the middle: {_decibels(data)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.loaders", description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "runs/benchmark-loaders", help="where the set is made")
    parser.add_argument("--count", type=int, default=NUM_SAMPLES, help="images of the set")
    parser.add_argument("--samples", type=int, default=NUM_SAMPLES, help="samples measured in each run")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="names of loaders, to run these alone")
    for peer, package in PEERS.items():
        parser.add_argument(f"--{peer}", metavar="PYTHON", help=f"a python that has {package}, torch and simplejpeg")
    return parser


def _peers(words: argparse.Namespace, data: Path) -> dict[str, str]:
    pythons = {}
    for peer, package in PEERS.items():
        given = getattr(words, peer)
        if given is None and find_spec(package.split(".")[0]) and _imports(sys.executable, package):
            given = sys.executable
        if given is None:
            print(f"{peer} is left out: {package} is not in this environment; give --{peer} PYTHON of one that has it")
        elif peer != "energon" or _prepare_energon(given, data):
            pythons[peer] = given
    return pythons


def _imports(python: str, package: str) -> bool:
    return subprocess.run([python, "-c", f"import {package}"], capture_output=True).returncode == 0


def _prepare_energon(python: str, data: Path) -> bool:
    """The same tars, as links, with what energon wants beside them."""
    folder = data.parent / f"{data.name}-energon"
    if not (folder / ".nv-meta" / "dataset.yaml").exists():
        folder.mkdir(exist_ok=True)
        for shard in data.glob("*.tar"):
            (folder / shard.name).unlink(missing_ok=True)
            os.link(shard, folder / shard.name)
        tool = Path(python).parent / "energon"
        options = ["--non-interactive", "--no-progress", "--split-ratio", "1,0,0", "--sample-type", "CrudeWebdataset"]
        subprocess.run([tool, "prepare", *options, "--num-workers", "1", folder], check=True, capture_output=True)
    return True


def _run(name: str, python: str, data: Path, num_samples: int) -> dict[str, float]:
    """Wall and CPU microseconds per sample of one run."""
    num_samples *= HAND_OVER_FACTOR if name.startswith("hand_over") else 1
    words = [python, str(ROOT / "tests/benchmarks/loader_runs.py"), name, str(data), str(num_samples), str(NUM_WORKERS)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=RUN_SECONDS)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _said(run: dict[str, float]) -> str:
    return f"{run['cpu_us']:.0f} us CPU, {run['wall_us']:.0f} us wall per sample"


def _show(found: dict[str, list[dict[str, float]]]) -> None:
    middle = {name: {key: median(run[key] for run in runs) for key in runs[0]} for name, runs in found.items()}
    print(f"\n{'loader':20} {'us CPU':>8} {'us wall':>8} {'CPU ratio':>10} {'wall ratio':>10}   asked")
    ours = middle.get("ours")
    for name, cost in middle.items():
        ratios = [f"{cost[key] / ours[key]:10.2f}" if ours else f"{'':10}" for key in ("cpu_us", "wall_us")]
        asked = f">= {TARGETS[name]}" if name in TARGETS else ""
        print(f"{name:20} {cost['cpu_us']:8.0f} {cost['wall_us']:8.0f} {' '.join(ratios)}   {asked}")
    if ours and "bare" in middle:
        shares = [middle["bare"][key] / ours[key] for key in ("cpu_us", "wall_us")]
        print(f"share of bare decoding's rate: {shares[0]:.0%} CPU, {shares[1]:.0%} wall   asked >= 55%")
    if "hand_over_ours" in middle and "hand_over_torch" in middle:
        own, theirs = middle["hand_over_ours"]["cpu_us"], middle["hand_over_torch"]["cpu_us"]
        print(f"hand-over: {own:.0f} us CPU, {own / theirs:.2f} of the DataLoader's   asked <= 70 us and <= 0.25")


def _decibels(data: Path, count: int = 200) -> str:
    found = []
    for image, _ in read_pairs(data)[:count]:
        ours = fit(decode(image), (SIZE, SIZE)).permute(1, 2, 0).numpy().astype(float)
        error = np.mean((ours - _pillow(image)) ** 2)
        found.append(10 * np.log10(255**2 / max(error, 1e-9)))
    return f"mean {np.mean(found):.1f} dB, least {min(found):.1f} dB of {len(found)} images   asked >= 60 dB"


def _pillow(content: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(content)).convert("RGB")
    shorter = min(image.size)
    width, height = (SIZE * side // shorter for side in image.size)
    left, top = round((width - SIZE) / 2), round((height - SIZE) / 2)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(resized.crop((left, top, left + SIZE, top + SIZE))).astype(float)


if __name__ == "__main__":
    sys.exit(main())
