"""Merging of config trees."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mmtrain.config.presets import laid_over

KEYS = st.sampled_from(["a", "b", "c"])
LEAVES = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
TREES = st.recursive(st.dictionaries(KEYS, LEAVES, max_size=3), lambda inner: st.dictionaries(KEYS, LEAVES | inner))


def flat(tree: dict[str, Any], prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Leaves by their path; an empty section is a leaf."""
    found: dict[tuple[str, ...], Any] = {}
    for key, value in tree.items():
        inner = flat(value, (*prefix, key)) if isinstance(value, dict) else {}
        found |= inner or {(*prefix, key): value}
    return found


@given(TREES, TREES)
def test_every_leaf_of_the_upper_tree_holds_and_no_other_is_invented(under: Any, over: Any) -> None:
    merged = flat(laid_over(under, over))
    for path, value in flat(over).items():
        assert merged.get(path, value) == value or value == {}
    for path, value in merged.items():
        assert flat(over).get(path, flat(under).get(path, {})) == value


@given(TREES, TREES, TREES)
def test_merging_is_associative_where_sections_stay_sections(one: Any, two: Any, three: Any) -> None:
    kinds = [{path: None for path in flat(tree)} for tree in (one, two, three)]
    paths = [path for kind in kinds for path in kind]
    # A leaf over a section forgets the section, so order of merging matters there by design.
    if any(a != b and a == b[: len(a)] for a in paths for b in paths):
        return
    assert laid_over(laid_over(one, two), three) == laid_over(one, laid_over(two, three))


@given(TREES, TREES)
def test_merging_changes_neither_tree(under: Any, over: Any) -> None:
    before = repr((under, over))
    laid_over(under, over)
    assert repr((under, over)) == before
