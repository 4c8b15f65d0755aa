"""Sections 6 and 7 of docs/format.md: the root chunk, the report, tree chunks and map chunks."""

from dataclasses import dataclass, field
from typing import NamedTuple

from .encoding import Decoder, FormatError, parse_json, unbase64
from .packs import PACK_NUMBERS, Ref, decode_ref

XATTRS, LINKED, FILE_ID, NOT_CONSISTENT, UNREADABLE, CHANGED = 1, 2, 4, 8, 16, 32
MAP_STEP = 8 << 20
ID_LIMIT = 1 << 32
SIZE_LIMIT = 1 << 63
NSEC = 10**9


class Extent(NamedTuple):
    """A run of a file: a hole, or a part of a chunk."""

    length: int
    ref: Ref | None = None
    offset: int = 0


class Map(NamedTuple):
    """A map chunk, what it covers, and the packs that its extents use."""

    ref: Ref
    length: int
    packs: frozenset


@dataclass
class Entry:
    """One thing of a tree."""

    path: bytes
    type: str = ""
    flags: int = 0
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime: int = 0  # nanoseconds
    device: int = 0
    inode: int = 0
    target: bytes = b""
    rdev: tuple = (0, 0)
    xattrs: list = field(default_factory=list)
    size: int = 0
    file_id: bytes = b""
    extents: list = field(default_factory=list)
    maps: list = field(default_factory=list)


def order(path):
    """What paths are ordered by: no path has a zero byte, so it can stand for the slash."""
    return path.replace(b"/", b"\0")


def check_path(path):
    if len(path) > 65535 or not path.startswith(b"/") or b"\0" in path:
        raise FormatError(f"not a path: {path!r}")
    if path != b"/" and any(part in (b"", b".", b"..") for part in path[1:].split(b"/")):
        raise FormatError(f"a path with a component that is none: {path!r}")
    return path


def within(path, top):
    return path == top or path.startswith(top.rstrip(b"/") + b"/")


def decode_root(plain):
    """The roots, and (first path, ref) of each tree chunk."""
    d = Decoder(plain, "root")
    roots = [check_path(d.string()) for _ in range(d.count(2))]
    chunks = [(check_path(d.string()), decode_ref(d)) for _ in range(d.count(38))]
    d.end()
    for (before, _), (after, _) in zip(chunks, chunks[1:], strict=False):
        d.check(order(before) < order(after), "tree chunks out of order")
    return roots, chunks


def decode_report(plain):
    for problem in parse_json(plain, "report").each("problems"):
        problem.text("operation")
        problem.text("error")
        if problem.has("path"):
            unbase64(problem.text("path"))


def decode_tree(plain):
    """The entries of a tree chunk."""
    d, previous = Decoder(plain, "tree"), b""
    while d.left():
        record = Decoder(d.string(), "tree entry")
        entry = _entry(record, previous)
        record.end()
        if previous and order(entry.path) <= order(previous):
            d.refuse("entries out of order")
        previous = entry.path
        yield entry


def _entry(d, previous):
    shared = d.uvarint(len(previous) + 1)
    rest = d.string()
    path = check_path(previous[:shared] + rest)
    if shared < len(previous) and rest[:1] == previous[shared : shared + 1]:
        d.refuse("the common prefix is not the longest")
    e = Entry(path, chr(d.u8()), d.uvarint(128), d.uvarint(0o10000))
    if e.type not in "fdlpscb":
        d.refuse(f"unknown type {e.type!r}")
    if (e.flags & LINKED and e.type == "d") or (e.flags & FILE_ID and e.type != "f"):
        d.refuse("a flag that its type does not have")
    e.uid, e.gid = d.uvarint(ID_LIMIT), d.uvarint(ID_LIMIT)
    d.string(), d.string()
    e.mtime, _ = d.varint() * NSEC + d.uvarint(NSEC), d.varint() * NSEC + d.uvarint(NSEC)
    e.device, e.inode = d.uvarint(), d.uvarint()
    if e.type == "l":
        e.target = d.string(65535)
        d.check(b"\0" not in e.target, "a zero byte in a target")
    elif e.type in "cb":
        e.rdev = d.uvarint(ID_LIMIT), d.uvarint(ID_LIMIT)
    if e.flags & XATTRS:
        e.xattrs = _xattrs(d)
    if e.type == "f":
        _file(d, e)
    return e


def _xattrs(d):
    count, xattrs = d.count(3), []
    d.check(count, "no xattrs, but the flag")
    for _ in range(count):
        name = d.string()
        d.check(name and b"\0" not in name and (not xattrs or xattrs[-1][0] < name), "xattr names out of order")
        xattrs.append((name, d.string()))
    return xattrs


def _file(d, e):
    e.size = d.uvarint(SIZE_LIMIT)
    if e.flags & FILE_ID:
        e.file_id = d.take(16)
    maps = d.uvarint(2) == 1
    d.check(maps == (e.size > MAP_STEP), "maps are for files over 8 MiB")
    if maps:
        e.maps = [_map(d) for _ in range(d.count(38))]
        each = e.maps[0].length if e.maps else 0
        regular = all(m.length == each for m in e.maps[:-1]) and each >= e.maps[-1].length if e.maps else False
        d.check(regular and (len(e.maps) == 1 or each % MAP_STEP == 0), "maps that do not cover equal parts")
        total = sum(m.length for m in e.maps)
    else:
        e.extents = _extents(d)
        total = sum(x.length for x in e.extents)
    d.check(total == e.size, "extents do not add up to the size")
    d.check(not e.flags & UNREADABLE or (e.size == 0 and not e.flags & FILE_ID), "an unreadable file with content")


def _map(d):
    ref, length, packs, last = decode_ref(d), d.uvarint(least=1), [], 0
    for i in range(d.count(2)):
        first = last + d.uvarint(least=1 if i == 0 else 2)
        last = first + d.uvarint()
        d.check(last < PACK_NUMBERS, "a pack number out of range")
        packs.append(range(first, last + 1))
    return Map(ref, length, frozenset(number for run in packs for number in _bounded(d, run)))


def _bounded(d, run):
    # No map's extents can use more packs than this; a writer's mistake must not fill the memory.
    d.check(len(run) <= 1 << 20, "a map that uses too many packs")
    return run


def _extents(d):
    extents, hole = [], False
    for _ in range(d.count(2)):
        kind = d.u8()
        d.check(kind < 2, "unknown kind of extent")
        if kind == 0:
            d.check(not hole, "a hole follows a hole")
            extents.append(Extent(d.uvarint(SIZE_LIMIT, 1)))
        else:
            ref, offset, length = decode_ref(d), d.uvarint(), d.uvarint(least=1)
            d.check(offset + length <= ref.plain, "an extent beyond its chunk")
            extents.append(Extent(length, ref, offset))
        hole = kind == 0
    return extents


def decode_map(plain):
    """The extents of a map chunk."""
    d = Decoder(plain, "map")
    extents = _extents(d)
    d.end()
    return extents


def check_map(extents, mapped):
    """A map chunk must be what the entry says."""
    if sum(x.length for x in extents) != mapped.length:
        raise FormatError("a map's extents do not cover what the map should")
    if {x.ref.pack for x in extents if x.ref} != mapped.packs:
        raise FormatError("the packs that a map names are not those of its extents")
    return extents
