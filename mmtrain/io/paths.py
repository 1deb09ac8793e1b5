"""Resolution of the local names that users give: exact names, home folders, braces, glob patterns. No torch.

One rule for every command:
1. What exists under exactly that name is meant, whatever signs are in it ([ ] { } * ? # % ~, spaces, bytes that are
   not UTF-8). The same holds for each part of a pattern between slashes: in "d [v2]/*.csv" the folder "d [v2]" is
   itself where it exists.
2. "~" and "~user" at the beginning are home folders.
3. Else braces expand ({000..009}, {a,b}), and for each expanded name rules 1 and 2 hold again; what does not exist is a
   glob pattern (*, ?, [abc], ** for any depth). Patterns match no hidden names unless they begin with a dot themselves.
A name that means nothing is an InputError that says what exists nearest to it. So are a link to what does not exist,
and a name of what is neither a file nor a folder (a FIFO would hang its reader).
"""

import errno
import os
import re
from collections.abc import Iterator
from difflib import get_close_matches
from fnmatch import translate
from itertools import groupby, islice
from pathlib import Path

from braceexpand import UnbalancedBracesError, braceexpand

from mmtrain.io.errors import InputError
from mmtrain.io.folders import DEAD_LINK, FOLDER, Entry, kind_of_mode, looked_at, scan_folder, walk_folders
from mmtrain.io.text import redact
from mmtrain.io.urls import is_http, normalize_url, scheme_of

MAGIC = "*?["
MAX_EXPANDED = 1_000_000  # names that braces may stand for
MAX_SHOWN = 200  # characters of a name in a message
NUM_NEIGHBOURS = 1000  # names of a folder that are compared with a missing one


def resolve(name: str, label: str) -> list[Entry]:
    """The files and folders that `name` means, in the order of its braces, each pattern's matches sorted.

    `label` says in an InputError whose value the name is ("data.train", "INPUT"). Matches of a pattern may be of any
    kind: whoever takes one of them checks it (`Entry.checked`).
    """
    if not name:
        raise InputError(f"{label} is empty; name a file, a folder or a pattern")
    if exact := _exact(name, label):
        return [exact]
    home = expand_user(name)
    if home != name and (exact := _exact(home, label)):
        return [exact]
    if _is_pattern(home) and (matches := _matches(home, label)):
        return matches
    if "{" not in home and "}" not in home:
        raise _missing(name, home, label)
    found = [entry for one in expand_braces(home, label) for entry in _expanded(one, name, label)]
    return list({entry.path: entry for entry in found}.values())


def expand_user(name: str) -> str:
    """`name` with "~" or "~user" at its beginning replaced by that home folder, unless such a name itself exists."""
    if not name.startswith("~") or lexists(name):
        return name
    try:
        return os.path.expanduser(name)
    except ValueError:  # of a user no account can be called
        return name


def local_fault(name: str) -> str:
    """Why a name, its home expanded, is none of a local file or folder that is or could be made; empty where it is."""
    if lexists(name):
        return ""
    if name.startswith("~"):
        return f"there is no such home folder; write ./{name} for a file here"
    return "it is an address; wanted a local path" if scheme_of(name) else ""


def expand_braces(name: str, label: str) -> Iterator[str]:
    """The names that braces stand for, one where there are none; InputError where they are unbalanced or too many."""
    if _num_expanded(name) > MAX_EXPANDED:
        raise InputError(f"{label} is {shown(name)}, whose braces stand for more than {MAX_EXPANDED} names; name fewer")
    try:
        yield from braceexpand(name)
    except UnbalancedBracesError as error:
        raise InputError(
            f"{label} is {shown(name)}, which does not exist and has unbalanced braces; wanted as in {{000..009}}"
        ) from error


def expand_url(address: str, label: str) -> list[str]:
    """The addresses that braces in the path of one stand for (never those in its query), normalized.

    Unbalanced braces are taken as they are: only its server knows whether such a name exists.
    """
    head, mark, query = address.partition("?") if is_http(address) else (address, "", "")
    if _num_expanded(head) > MAX_EXPANDED:
        raise InputError(f"{label} is {shown(address)}, whose braces stand for more than {MAX_EXPANDED} names")
    try:
        heads = list(braceexpand(head)) if "{" in head else [head]
    except UnbalancedBracesError:
        heads = [head]
    return [normalize_url(f"{one}{mark}{query}") for one in heads]


def lexists(name: str | Path) -> bool:
    """Whether anything has that name, a dead link too; False of names that no file can have."""
    try:
        os.lstat(name)
    except (OSError, ValueError):
        return False
    return True


def identity(entry: Entry, folders: dict[str, str]) -> str:
    """The real path of a file, which tells two names of one file; `folders` remembers those of folders."""
    place, is_link = str(entry.path), entry.is_link
    while True:
        folder, slash, name = place.rpartition("/")
        if (real := folders.get(folder)) is None:
            real = folders[folder] = os.path.realpath(folder or slash or ".").rstrip("/")
        place = f"{real}/{name}"
        if not is_link:
            return place
        place = os.path.join(real or "/", os.readlink(place))
        is_link = os.path.islink(place)


def shown(name: str | Path) -> str:
    """A name in quotes as messages show it: a very long one by its ends, an address among it without secrets."""
    text = redact(str(name))
    if len(text) > MAX_SHOWN:
        return f"{text[:60]!r}...{text[-20:]!r} ({len(text)} characters)"
    return repr(text)


def _exact(name: str, label: str) -> Entry | None:
    """What exists under exactly that name; None where nothing does."""
    path = Path(name)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return Entry(path, DEAD_LINK).checked(label) if lexists(path) else None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return Entry(path, DEAD_LINK).checked(label)
        if error.errno == errno.ENAMETOOLONG and (_is_pattern(name) or "{" in name):  # each expanded one may be shorter
            return None
        raise InputError(f"{label} is {shown(name)}, which cannot be looked at: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{label} is {shown(name)}, which no file can be called: {error}") from error
    return Entry(path, kind_of_mode(mode), path.is_symlink()).checked(label)


def _expanded(one: str, name: str, label: str) -> list[Entry]:
    home = expand_user(one)
    if exact := _exact(one, label) or _exact(home, label):
        return [exact]
    if matches := _matches(home, label) if _is_pattern(home) else []:
        return matches
    raise _missing(name, home, label)


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in MAGIC)


def _matches(pattern: str, label: str) -> list[Entry]:
    """What a glob pattern matches, sorted by path; folders behind links are entered once."""
    anchor = "/" if pattern.startswith("/") else ""
    parts = [part for part in pattern.split("/") if part]
    found = sorted(_match_parts(Path(anchor), parts, label), key=lambda entry: entry.path)
    return [next(same) for _, same in groupby(found, key=lambda entry: entry.path)]


def _match_parts(base: Path, parts: list[str], label: str) -> Iterator[Entry]:
    part, rest = parts[0], parts[1:]
    if _is_pattern(part) and not lexists(base / part):
        if part == "**":
            for folder in walk_folders(base, label):
                yield from _match_parts(folder, rest or ["*"], label)
            return
        fits = re.compile(translate(part)).match
        with looked_at(base, label):
            found = scan_folder(base, lambda name: (name[0] != "." or part[0] == ".") and fits(name) is not None)
            entries = sorted(found, key=lambda entry: entry.path.name)
    else:
        path = base / part
        exact = _exact(str(path), label) if lexists(path) else None
        entries = [exact] if exact else []
    for entry in entries:
        if not rest:
            yield Entry(entry.path, entry.kind, entry.is_link, is_match=True)
        elif entry.kind == FOLDER:
            yield from _match_parts(entry.path, rest, label)


def _missing(name: str, expanded: str, label: str) -> InputError:
    """The error of a name that means nothing, with what exists nearest to it."""
    origin = "" if expanded == name else f" (from {shown(name)})"
    what = "matches nothing" if _is_pattern(expanded) else "does not exist"
    hint = "; variables such as $HOME are not expanded here" if "$" in expanded else ""
    return InputError(f"{label} names {shown(expanded)}{origin}, which {what}{hint}; {_nearest(Path(expanded))}")


def _nearest(path: Path) -> str:
    """What exists of a missing path: its deepest folder, and there the names most like the next part."""
    missing = path
    while not os.path.isdir(here := missing.parent) and here != missing:
        missing = here
    with looked_at(here, "the folder"):
        names = [entry.path.name for entry in islice(scan_folder(here), NUM_NEIGHBOURS)]
    place = "this folder" if here == Path() else shown(here)
    if near := get_close_matches(missing.name, names, n=3, cutoff=0.6):
        return f"{place} holds {', '.join(map(shown, near))}"
    visible = sorted(name for name in names if not name.startswith("."))
    if not visible:
        return f"{place} is empty"
    return f"{place} holds {', '.join(map(shown, visible[:3]))}" + (", ..." if len(visible) > 3 else "")


def _num_expanded(name: str) -> int:
    """At most so many names that braces stand for, without making them: groups count by their commas and ranges."""
    total, groups = 1, []
    for position, sign in enumerate(name):
        if sign == "{":
            groups.append((position, 1))
        elif sign == "," and groups:
            groups[-1] = (groups[-1][0], groups[-1][1] + 1)
        elif sign == "}" and groups:
            start, count = groups.pop()
            total *= max(count, _range_size(name[start + 1 : position]))
            if total > MAX_EXPANDED:
                break
    return total


def _range_size(text: str) -> int:
    bounds = text.split("..")
    if len(bounds) > 1 and len(bounds[0]) == len(bounds[1]) == 1 and not text[0].isdecimal():
        return abs(ord(bounds[0]) - ord(bounds[1])) + 1
    try:
        first, last = int(bounds[0]), int(bounds[1])
        step = abs(int(bounds[2])) if len(bounds) > 2 else 1
    except (IndexError, ValueError):
        return 1
    return abs(last - first) // max(step, 1) + 1
