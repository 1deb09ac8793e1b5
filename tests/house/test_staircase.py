"""The house keeps its shape: imports go down, heavy dependencies have door-keepers, some rooms need no torch."""

import ast
import subprocess
import sys
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOOR = 6
FLOORS = {
    "training": 5,  # what the doors that train share
    **dict.fromkeys(("loop", "tasks", "deploy"), 4),
    "engine": 3,
    **dict.fromkeys(("cluster", "data", "model", "objectives", "checkpoint", "monitor", "planner", "hf"), 2),
    **dict.fromkeys(("config", "parallel", "pixels", "records", "scores"), 1),
    **dict.fromkeys(("", "io"), 0),  # mmtrain/__init__.py, and input and output that everything uses
}
DOOR_KEEPERS = {  # by what is imported: the only files of mmtrain/ that may
    "deepspeed": ("engine/zero.py", "engine/partition.py"),
    "megatron": (
        "model/*.py",
        "parallel/groups.py",
        "parallel/collectives.py",
        "parallel/cpu.py",
        "engine/pipeline.py",
    ),
    "torch.utils.tensorboard": ("monitor/log.py",),
    "transformers": ("hf/*.py",),
    "sentencepiece": ("data/tokenizer.py",),
    "pydantic": ("config/*.py",),
    "yaml": ("config/*.py",),
    "data_tools": (),
}
ENVIRONMENT_KEEPERS = ("preflight.py", "parallel/launch.py", "parallel/groups.py", "monitor/log.py")
TORCH_FREE = (
    "mmtrain/io/*.py", "mmtrain/config/*.py", "mmtrain/planner/*.py", "mmtrain/scores/*.py", "mmtrain/records.py",
    "mmtrain/cli.py",
    "mmtrain/preflight.py", "mmtrain/cluster/node.py", "mmtrain/cluster/verdict.py", "mmtrain/cluster/meeting.py",
    "mmtrain/parallel/grid.py", "mmtrain/parallel/slices.py", "mmtrain/data/index.py", "mmtrain/data/order.py",
    "mmtrain/data/sources.py", "mmtrain/data/tokenizer.py", "data_tools/*.py",
)  # fmt: skip
NAMELESS = {"utils", "util", "common", "helpers", "core", "misc"}

FILES = sorted(path for package in ("mmtrain", "data_tools") for path in (ROOT / package).rglob("*.py"))
OURS = [path for path in FILES if path.is_relative_to(ROOT / "mmtrain")]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path) for path in FILES}


def imports_of(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it; `from package import module` is the module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; name the module from mmtrain on"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & MODULES) or {node.module}
    return found


def room_of(module: str) -> str:
    return (module.split(".") + [""])[1]


def floor_of(module: str) -> int:
    return FLOORS.get(room_of(module), DOOR)


def is_in(path: Path, keepers: tuple[str, ...]) -> bool:
    return any(fnmatch(path.relative_to(ROOT / "mmtrain").as_posix(), keeper) for keeper in keepers)


def up_or_sideways(module: str, imported: set[str]) -> set[str]:
    """Those of our modules that `module` may not import: of its own floor in another room, or of a floor above."""
    inside = {name for name in imported if name.split(".")[0] == "mmtrain" and room_of(name) != room_of(module)}
    return {name for name in inside if floor_of(name) >= floor_of(module)}


@pytest.mark.parametrize("path", OURS, ids=module_of)
def test_imports_go_down_the_stairs(path: Path) -> None:
    assert up_or_sideways(module_of(path), imports_of(path)) == set()


def test_an_import_up_or_sideways_would_be_seen() -> None:
    bad = {"mmtrain.model.vlm", "mmtrain.engine.zero", "mmtrain.pretrain"}
    assert up_or_sideways("mmtrain.data.stream", bad | {"mmtrain.records", "mmtrain.data.order", "torch"}) == bad
    assert up_or_sideways("mmtrain.config.load", {"mmtrain.scores.retrieval"})


def test_the_loop_knows_engines_only_by_contract() -> None:
    for path in (path for path in OURS if module_of(path) == "mmtrain.loop"):
        engines = {name for name in imports_of(path) if name.startswith("mmtrain.engine")}
        assert engines <= {"mmtrain.engine.contract"}


def test_no_circle_of_imports() -> None:
    graph = {module_of(path): imports_of(path) & MODULES - {module_of(path)} for path in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("dependency", DOOR_KEEPERS)
def test_a_heavy_dependency_is_met_only_by_its_door_keepers(dependency: str) -> None:
    def meets(path: Path) -> bool:
        return any(f"{name}.".startswith(f"{dependency}.") for name in imports_of(path))

    assert [module_of(path) for path in OURS if meets(path) and not is_in(path, DOOR_KEEPERS[dependency])] == []


def test_the_environment_is_read_only_by_its_keepers() -> None:
    readers = [path for path in OURS if "os.environ" in path.read_text() or "getenv" in path.read_text()]
    assert [module_of(path) for path in readers if not is_in(path, ENVIRONMENT_KEEPERS)] == []


def test_data_tools_know_only_the_data_of_mmtrain() -> None:
    known = {name for path in FILES if path not in OURS for name in imports_of(path) if name.startswith("mmtrain")}
    assert {name for name in known if room_of(name) not in ("data", "io")} == set()


def test_rooms_that_promise_it_import_without_torch() -> None:
    modules = sorted(
        {module_of(path) for pattern in TORCH_FREE for path in ROOT.glob(pattern)} - {"data_tools.__main__"}
    )
    code = "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n"
    code += "    assert 'torch' not in sys.modules, f'{name} imports torch'"
    done = subprocess.run([sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(modules) >= len(TORCH_FREE)


def test_nothing_beside_the_doors_bears_the_name_of_another_module() -> None:
    # `python mmtrain/pretrain.py` puts this folder first on the path: a json.py there would be everyone's json.
    names = {path.stem for path in (ROOT / "mmtrain").iterdir() if path.suffix == ".py" or path.is_dir()}
    taken = set(sys.stdlib_module_names) | set(packages_distributions()) - {"mmtrain", "data_tools"}
    assert names & taken <= {"io"}  # which the interpreter has imported before it looks at any path


def test_no_room_is_named_after_nothing() -> None:
    assert [module_of(path) for path in FILES if NAMELESS & set(module_of(path).split("."))] == []


def test_nothing_is_printed_outside_the_doors() -> None:
    def prints(path: Path) -> bool:
        calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        # What names a file to print to is no stray line on stdout.
        return any(getattr(call.func, "id", "") == "print" and not call.keywords for call in calls)

    assert [module_of(path) for path in OURS if floor_of(module_of(path)) < DOOR and prints(path)] == []


def test_no_test_asserts_a_wall_clock() -> None:
    clocks = {"perf_counter", "monotonic", "time"}

    def reads_a_clock(node: ast.AST) -> bool:
        return any(
            isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in clocks
            for call in ast.walk(node)
        )

    found = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if "benchmarks" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            # A difference of times is a speed; a deadline after which a test gives up compares with a name.
            if isinstance(node, ast.Assert) and any(
                isinstance(side, ast.BinOp) and reads_a_clock(side) for side in ast.walk(node.test)
            ):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []
