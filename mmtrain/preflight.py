"""Preflight: what a cluster job asks before it trains: is the run as asked, and is every node fit for it.

mmtrain preflight run --config configs/pretrain/base.yaml --world 64 key=value ...       says the run folder
mmtrain preflight node --node NAME --nodes A,B,C --at A:29500 --ranks 8 --gpus 8 ...     on every node at once

The environment variable PREFLIGHT_SECRET, the same on all nodes of a job, keeps others from taking part.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict

from mmtrain.cluster.meeting import Host, Line, Place, visit
from mmtrain.cluster.node import NodeReport, Wants, look
from mmtrain.cluster.verdict import Blame, RankResult, judge_reports, judge_results
from mmtrain.io.arguments import Parser, at_least, local_path, natural, positive, whole
from mmtrain.io.command import ExitCode, run_command
from mmtrain.io.console import print_error

SECRET_VARIABLE = "PREFLIGHT_SECRET"  # noqa: S105 (a name): slurm/job.sh makes a new one for each job
BAD_NODE = "bad node"  # begins the line that names one; slurm/pretrain.sh looks for it


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 where the run cannot start as asked or a node is bad; each bad node has a line of its own."""
    return run_command(lambda: _act(_parser().parse_args(argv)), "mmtrain")


def _act(words: argparse.Namespace) -> int:
    return words.act(words)


def _parser() -> Parser:
    parser = Parser(prog="mmtrain preflight", description="What a cluster job asks before it trains.")
    acts = parser.add_subparsers(required=True, metavar="run | node")
    run = acts.add_parser("run", help="check a config for a number of ranks, and say the run folder")
    run.add_argument("--config", type=local_path, required=True)
    run.add_argument("--world", type=whole, required=True, help="number of ranks")
    run.add_argument("overrides", nargs="*", metavar="key=value")
    run.set_defaults(act=check_run)
    node = acts.add_parser("node", help="check this node, and that it adds up with the others")
    node.add_argument("--node", required=True, help="the name of this node")
    node.add_argument("--nodes", required=True, type=lambda text: text.split(","), help="all of them, by commas")
    node.add_argument("--at", required=True, type=Place.parse, metavar="HOST:PORT", help="where the first node listens")
    node.add_argument("--ranks", type=whole, required=True, help="on each node")
    node.add_argument("--gpus", type=natural, default=0, help="on each node; 0: the job computes on CPUs")
    node.add_argument("--gpu-memory-gib", type=at_least(0.0), default=0.0, help="of each GPU, at least")
    node.add_argument(
        "--folder", type=local_path, action="append", default=[], help="that is written into; may be repeated"
    )
    node.add_argument("--free-gib", type=at_least(0.0), default=1.0, help="in each folder, at least (%(default)s)")
    node.add_argument("--shm-gib", type=at_least(0.0), default=1.0, help="free in /dev/shm, at least (%(default)s)")
    node.add_argument("--patience", type=positive, default=60.0, metavar="SECONDS", help="for each of the two rounds")
    node.set_defaults(act=check_node)
    rank = acts.add_parser("rank")  # one process of the all-reduce, started by `node`
    rank.add_argument("place")
    rank.add_argument("numbers", type=int, nargs=3, metavar="RANK WORLD_SIZE LOCAL_WORLD_SIZE")
    rank.add_argument("seconds", type=float)
    rank.set_defaults(act=add_up)
    return parser


def check_run(words: argparse.Namespace) -> int:
    """Print the run folder of a config that is fit for so many ranks; 2 and every fault where it is not."""
    from mmtrain.config.check import load_checked
    from mmtrain.config.inherited import laid_under
    from mmtrain.config.load import read_config

    plan, _ = read_config(words.config, words.overrides)
    print(load_checked(words.config, words.overrides, words.world, laid_under(plan)).run_dir.absolute(), flush=True)
    return ExitCode.DONE


def check_node(words: argparse.Namespace) -> int:
    """Look at this node, then meet the others; the first node says which are bad. 0 where all are fit."""
    wants = Wants(words.gpus, words.gpu_memory_gib, tuple(words.folder), words.free_gib, words.shm_gib)
    report = look(words.node, wants)
    return _as_host(words, report) if words.node == words.nodes[0] else _as_guest(words, report)


def _as_host(words: argparse.Namespace, report: NodeReport) -> int:
    try:
        host = Host(words.at, words.nodes[1:], _secret())
    except OSError as fault:
        return _name({words.node: f"it cannot listen on port {words.at.port}: {fault.strerror}"})
    try:
        reports = {words.node: report}
        for node, said in host.welcome(words.patience).items():
            if (found := _report(node, said)) is not None:
                reports[node] = found
        blame = judge_reports(words.nodes, reports, str(words.at))
        host.tell(not blame)
        if blame:
            return _name(blame)
        results = {words.node: _run_ranks(words)}
        for node, rows in host.hear_all(words.patience).items():
            try:
                results[node] = [_result(row) for row in rows]
            except (KeyError, TypeError):
                continue  # no result: it is missed
    finally:
        host.close()
    blame = judge_results(words.nodes, results)
    if not blame:
        ranks = len(words.nodes) * words.ranks
        print(f"preflight: {len(words.nodes)} nodes are fit, and an all-reduce over {ranks} ranks is right", flush=True)
    return _name(blame)


def _as_guest(words: argparse.Namespace, report: NodeReport) -> int:
    try:
        line: Line = visit(words.at, words.node, [report.faults, report.versions], words.patience, _secret())
        # The host looks at itself and may wait for others.
        if not line.hear(3 * words.patience):
            return ExitCode.REFUSED  # the host names who is bad
        line.say([asdict(result) for result in _run_ranks(words)])
    except (OSError, ValueError) as fault:
        print_error("preflight", f"{words.node} lost {words.at}: {fault}")
        return ExitCode.REFUSED
    return 0


def _secret() -> str:
    return os.environ.get(SECRET_VARIABLE, "")


def _run_ranks(words: argparse.Namespace) -> list[RankResult]:
    """What the ranks of this node found, each a process of its own; none outlives the call."""
    first, world = words.nodes.index(words.node) * words.ranks, len(words.nodes) * words.ranks
    place, seconds = f"{words.at.host}:{words.at.port + 1}", str(words.patience * 0.7)
    command = [sys.executable, "-m", "mmtrain.preflight", "rank", place]
    processes = [
        subprocess.Popen(  # noqa: S603 (our own program)
            [*command, str(first + number), str(world), str(words.ranks), seconds],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for number in range(words.ranks)
    ]
    return [_answer(process, first + number, words.patience) for number, process in enumerate(processes)]


def _answer(process: subprocess.Popen[str], rank: int, seconds: float) -> RankResult:
    try:
        said, _ = process.communicate(timeout=seconds)
        return _result(json.loads(said.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return RankResult(rank, None, (), is_alone=True)
    except (IndexError, ValueError):
        return RankResult(rank, f"its process ended with exit code {process.returncode}", (), is_alone=False)


def _report(node: str, said: object) -> NodeReport | None:
    """What a node said of itself; None where that is no report, as of somebody who only calls himself so."""
    if not (isinstance(said, list) and len(said) == 2 and isinstance(said[0], list) and isinstance(said[1], dict)):
        return None
    return NodeReport(node, tuple(map(str, said[0])), {name: str(version) for name, version in said[1].items()})


def _result(row: dict) -> RankResult:
    return RankResult(row["rank"], row["fault"], tuple(row["wrong"]), row["is_alone"])


def add_up(words: argparse.Namespace) -> int:
    """One rank of the all-reduce; its result is the last line that it prints."""
    from mmtrain.cluster.allreduce import try_rank

    rank, world_size, local_world_size = words.numbers
    sizes = {"world_size": world_size, "local_world_size": local_world_size}
    print(json.dumps(asdict(try_rank(words.place, rank=rank, seconds=words.seconds, **sizes))), flush=True)
    return 0


def _name(blame: Blame) -> int:
    for node, reason in blame.items():
        print(f"{BAD_NODE} {node}: {reason}", flush=True)
    return ExitCode.REFUSED if blame else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
