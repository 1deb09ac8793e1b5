"""Samples of tars that any tool has written; what in them could do harm is refused and named."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from data_tools.images import image_extension
from data_tools.rows import Inside, Row, faulty
from data_tools.structure import dot_reason, is_dotted, scattered_keys
from mmtrain.data.index import Part, scan_shard
from mmtrain.data.tar import Member, TarDamage, tar_entries

FOLDER_KIND = b"5"
LINK_KINDS = {b"1": "a hard link", b"2": "a symbolic link", b"S": "a sparse file (GNU), whose bytes are not in order"}
# Loaders of these run what the file says, or they are programs.
CODE_SUFFIXES = {
    ".pkl", ".pickle", ".pck", ".pyd", ".pyc", ".py", ".pth", ".pt", ".ckpt", ".npy", ".npz", ".joblib", ".dill",
    ".so", ".dll", ".dylib", ".exe", ".sh", ".bat", ".cmd", ".ps1", ".js", ".jar", ".class", ".wasm", ".whl", ".egg",
}  # fmt: skip
REFUSED = "refused member"
DAMAGED = "damaged tar"
SCATTERED, DOTTED = "parts of a sample apart from each other", "dot in the name of a sample"


def tar_rows(shards: Sequence[Path], caption_field: str) -> Iterator[Row]:
    """A row per sample of each shard: caption from .txt, else the field of its .json; then what was refused.

    Nothing is extracted: a row says where in the tar its files lie.
    """
    for shard in shards:
        index, refused = scan_shard(shard), refused_members(shard)
        scattered = scattered_keys(index)
        offsets = {member.offset for member, _ in refused}
        for key, parts in zip(index.keys, index.parts, strict=True):
            if sound := {name: part for name, part in parts.items() if part.offset not in offsets}:
                yield from _rows(shard, key, sound, caption_field, is_scattered=key in scattered)
        for fault in index.faults:
            yield faulty(f"{shard.name}/{fault.key}".rstrip("/"), DAMAGED, fault.reason)
        for member, why in refused:
            yield faulty(f"{shard.name}/{member.name}", REFUSED, why)


def _rows(shard: Path, key: str, parts: dict[str, Part], caption_field: str, *, is_scattered: bool) -> Iterator[Row]:
    """The row of a sample; where it lacks parts because of the tar's layout, a row that says so."""
    row, source = _row(shard, key, parts, caption_field), f"{shard.name}/{key}"
    is_whole = row.image is not None and bool(row.captions)
    if is_whole or not (is_scattered or is_dotted(parts)):
        yield row
    elif is_scattered:
        yield faulty(source, SCATTERED, "write the tar anew with its members sorted by name (`tar --sort=name`)")
    if is_dotted(parts):
        yield faulty(source, DOTTED, dot_reason(key, parts))


def refused_members(shard: Path) -> list[tuple[Member, str]]:
    """The entries that may not be used, each with the reason; a damaged tar is looked at up to the damage."""
    found = []
    try:
        for member in tar_entries(shard):
            if why := refusal(member):
                found.append((member, why))
    except TarDamage:
        pass  # the index of the shard names it
    return found


def refusal(member: Member) -> str:
    """Why an entry of a tar may not be used; empty where it may."""
    if member.kind == FOLDER_KIND or (not member.name.strip("/.") and not member.size):
        return ""
    if not member.is_file:
        return f"is {LINK_KINDS.get(member.kind, 'neither a file nor a folder')}"
    if member.name.startswith(("/", "\\")) or member.name[1:2] == ":":
        return "has an absolute path"
    path = PurePosixPath(member.name.replace("\\", "/"))
    if ".." in path.parts:
        return "climbs out of the tar"
    if bad := CODE_SUFFIXES & {suffix.lower() for suffix in path.suffixes}:
        return f"may bear code ({min(bad)})"
    return ""


def _row(shard: Path, key: str, parts: dict[str, Part], caption_field: str) -> Row:
    inside = {extension: Inside(shard, part.offset, part.size) for extension, part in parts.items()}
    image, facts = image_extension(parts), inside.get("json")
    text = inside.get("txt") or (replace(facts, field=caption_field) if facts else None)
    return Row(0, f"{shard.name}/{key}", inside[image] if image else None, (text,) if text else (), facts)
