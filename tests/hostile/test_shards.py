"""Shards of other tools: verify, index and build name what is wrong with them, and what mends it."""

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.hostile.conftest import Ended

Command = Callable[..., Ended]
Files = list[tuple[str, bytes]]


def jpeg(number: int = 0) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (24, 16), (number * 40 % 256, 80, 160)).save(written, "JPEG")
    return written.getvalue()


def pairs(count: int = 3, prefix: str = "k", first: int = 0) -> Files:
    return [
        (f"{prefix}{number}.{extension}", content)
        for number in range(first, first + count)
        for extension, content in (("jpg", jpeg(number)), ("txt", b"a card %d" % number))
    ]


def tar(files: Files, kind: int = tarfile.USTAR_FORMAT) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=kind) as out:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    return written.getvalue()


def with_member(member: tarfile.TarInfo) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as out:
        for name, content in pairs():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
        out.addfile(member)
    return written.getvalue()


def link(kind: bytes) -> bytes:
    member = tarfile.TarInfo("k9.jpg")
    member.type, member.linkname = kind, "k0.jpg"
    return with_member(member)


def with_json(content: bytes) -> bytes:
    return tar([*pairs(2), ("k9.jpg", jpeg(9)), ("k9.txt", b"a card"), ("k9.json", content)])


SOUND = tar(pairs())
HEAD = tar(pairs()).rstrip(b"\0") + bytes(400)  # cut before the mark that closes it
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 81920\n" % (b"0" * 64)
ZSTD = bytes.fromhex("28b52ffd") + bytes(60)

# What lies there as x.tar; what verify says; what index says where that differs; samples that are indexed.
CASES: dict[str, tuple[bytes, str, str, int]] = {
    "gzip": (gzip.compress(SOUND), "compressed with gzip; unpack it with `gunzip`", "", 0),
    "bzip2": (bz2.compress(SOUND), "unpack it with `bunzip2`", "", 0),
    "xz": (lzma.compress(SOUND), "unpack it with `unxz`", "", 0),
    "zstd": (ZSTD, "unpack it with `unzstd`", "", 0),
    "zip": (b"PK\x03\x04" + bytes(600), "unpack it with `unzip`", "", 0),
    "lfs": (POINTER, "`git lfs pull` fetches it", "", 0),
    "html": (b"<!DOCTYPE html><html>not found</html>", "an HTML page", "", 0),
    "apple": (b"\x00\x05\x16\x07" + bytes(600), "AppleDouble", "", 0),
    "jpeg": (jpeg(), "a JPEG image", "", 0),
    "parquet": (b"PAR1" + bytes(600), "a Parquet table", "", 0),
    "empty": (b"", "the tar is empty", "", 0),
    "zeros": (bytes(1 << 20), "nothing but zeros", "", 0),
    "text": (b"no tar at all\n" * 100, "holds no tar header at byte 0", "", 0),
    "no sample": (bytes(10240), "", "holds no sample", 0),
    "cut member": (SOUND[:3300], "is cut inside k1", "", 1),
    "cut before mark": (HEAD[:-400], "without the mark that closes a tar", "", 3),
    "cut header": (SOUND[: len(SOUND.rstrip(b"\0")) // 512 * 512 + 512 + 100], "", "", 3),
    "glued": (SOUND + tar(pairs(3, first=3)), "behind the mark that closes it", "", 3),
    "glued without padding": (SOUND.rstrip(b"\0") + bytes(1024 + 300) + tar(pairs(3, first=3)), "", "", 3),
    "hole": (tar(pairs(1)).rstrip(b"\0") + bytes(1 << 21) + tar(pairs(2, first=1)), "bytes behind the mark", "", 1),
    "rubbish behind": (SOUND + b"rubbish", "holds 7 bytes behind", "", 3),
    "scattered": (tar(sorted(pairs(), key=lambda one: one[0][-3:])), "3 samples (k0 first) whose parts do not", "", 6),
    "one scattered": (tar([*pairs(2), ("k0.json", b"{}")]), "1 sample (k0 first) whose parts do not", "", 3),
    "dotted beside": (tar([*pairs(1, "shot"), *pairs(1, "shot0.v")]), "shot0.v0.jpg", "", 1),
    "dotted alone": (tar([*pairs(2, "shot.v"), *pairs(1, "s2.v", 7)]), "2 samples (shot first) with a dot", "", 2),
    "dotted folder": (tar(pairs(2, "a.b/k.")), "with a dot inside a name", "", 1),
    "images alone": (tar(pairs()[::2]), "has no caption", "3 of 3 samples have no caption (k0 first)", 3),
    "captions alone": (tar(pairs()[1::2]), "has no image", "3 of 3 samples have no image (k0 first)", 3),
    "one without": (tar(pairs()[:-1]), "k2: has no caption", "1 of 3 samples has no caption (k2 first)", 3),
    "caption in json": (
        tar([("k.jpg", jpeg()), ("k.json", b'{"caption": "a card"}')]),
        "only the field 'caption' of its .json; `mmdata build` makes .txt",
        "",
        1,
    ),
    "gif alone": (tar([("k.gif", b"GIF89a"), ("k.txt", b"x")]), "has no image", "", 1),
    "nan": (with_json(b'{"similarity": NaN}'), "k9: has a .json that holds NaN", "no faults", 3),
    "infinite": (with_json(b'{"a": [1e999]}'), "has a .json that holds", "no faults", 3),
    "minus infinite": (with_json(b'{"a": -Infinity}'), "has a .json that holds", "no faults", 3),
    "surrogate": (with_json(b'{"a": "\\ud83d"}'), "a lone surrogate", "no faults", 3),
    "surrogate name": (with_json(b'{"\\udc00": 1}'), "a lone surrogate", "no faults", 3),
    "deep": (with_json(b"[" * 100_000 + b"]" * 100_000), "deep", "no faults", 3),
    "deeper than 64": (with_json(b'{"a":' * 70 + b"1" + b"}" * 70), "levels deep", "no faults", 3),
    "no json": (with_json(b"{"), "has a .json that cannot be parsed", "no faults", 3),
    "latin json": (with_json(b'{"a": "\xe9"}'), "has a .json that cannot be parsed", "no faults", 3),
    "hard link": (link(tarfile.LNKTYPE), "k9.jpg: is a hard link; it is refused", "", 3),
    "symbolic link": (link(tarfile.SYMTYPE), "k9.jpg: is a symbolic link; it is refused", "", 3),
    "device": (link(tarfile.CHRTYPE), "neither a file nor a folder; it is refused", "", 3),
    "sparse": (link(tarfile.GNUTYPE_SPARSE), "a sparse file (GNU)", "", 3),
    "absolute": (tar([*pairs(), ("/etc/k9.jpg", jpeg(9)), ("/etc/k9.txt", b"x")]), "has an absolute path", "", 4),
    "climbing": (tar([*pairs(), ("../k9.jpg", jpeg(9)), ("../k9.txt", b"x")]), "climbs out of the tar", "", 4),
    "pickle": (tar([*pairs(), ("k2.pkl", b"x")]), "may bear code (.pkl)", "", 3),
    "twice": (tar([*pairs(1), ("k0.jpg", jpeg(5))]), "has two files .jpg", "", 1),
}  # fmt: skip
SOUND_CASES = {
    "ustar": SOUND,
    "gnu": tar(pairs(), tarfile.GNU_FORMAT),
    "pax": tar(pairs(), tarfile.PAX_FORMAT),
    "long names": tar(pairs(2, "x" * 140 + "/k"), tarfile.GNU_FORMAT),
    "apple inside": tar([*pairs(), ("__MACOSX/._k0.jpg", b"\0\5\26\7"), (".DS_Store", b"x"), ("README", b"x")]),
    "further parts": tar([*pairs(1), ("k0.seg.png", b"x"), ("k0.json", b'{"a": 1}'), ("k0.left.jpg", jpeg())]),
    "more padding": SOUND + bytes(1 << 16),
    "questions": tar([("k.jpg", jpeg()), ("k.json", b'{"questions": [{"question": "what?", "answer": "a"}]}')]),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_with_a_shard_is_named(case: str, folder: Path, command: Command) -> None:
    content, verified, indexed, num_samples = CASES[case]
    (folder / "x.tar").write_bytes(content)
    found = command("mmdata", "verify", folder)
    if verified:
        assert found.code == 1 and verified in found.out, found.out
        assert all(line.startswith("x.tar: ") for line in found.out.splitlines()[:-2]), found.out
    done = command("mmdata", "index", folder)
    assert (indexed or verified) in done.out and f"{num_samples} samples in" in done.out, done.out
    assert done.code == (0 if indexed == "no faults" else 1)
    assert (folder / "x.tar").read_bytes() == content
    assert (folder / "x.tar.index").exists() == (folder / "manifest.json").exists() == bool(num_samples)


@pytest.mark.parametrize("case", SOUND_CASES)
def test_a_sound_shard_has_no_faults(case: str, folder: Path, command: Command) -> None:
    (folder / "x.tar").write_bytes(SOUND_CASES[case])
    for words in ("verify", "index", "verify"):
        ended = command("mmdata", words, folder)
        assert ended.code == 0 and "no faults" in ended.out, ended.out


# Exit code of a build, and why samples are left out.
BUILT = {
    "gzip": (2, "damaged tar"),
    "lfs": (2, "damaged tar"),
    "glued": (0, "damaged tar"),
    "hole": (0, "damaged tar"),
    "cut member": (0, "damaged tar"),
    "scattered": (2, "parts of a sample apart from each other"),
    "dotted beside": (0, "dot in the name of a sample"),
    "dotted alone": (2, "dot in the name of a sample"),
}


@pytest.mark.parametrize("case", BUILT)
def test_a_build_names_it_too(case: str, folder: Path, command: Command) -> None:
    code, reason = BUILT[case]
    (folder / "x.tar").write_bytes(CASES[case][0])
    ended = command("mmdata", "build", folder / "x.tar", folder / "out", "--processes", "1")
    assert ended.code == code and reason in ended.out + ended.err
    assert reason in (folder / "out" / "left_out.jsonl").read_text()
