"""Section 5 of docs/format.md: refs, packs and pack lists."""

from typing import NamedTuple

from .encoding import Decoder, FormatError
from .seal import CHUNK_LIMIT, KINDS

PACK_LIMIT = 64 << 20
PACK_CHUNKS = 1 << 20
PACK_NUMBERS = 1 << 32
FIRST_CHUNK = 40
TAIL = 12  # index length, "HFPACKIX"
PACK_LEAST = FIRST_CHUNK + 18 + TAIL  # with the sealed index of no chunks


class Ref(NamedTuple):
    """Where a chunk is, and what it is."""

    pack: int
    offset: int
    sealed: int
    plain: int
    id: bytes

    def check(self):
        if not (1 <= self.pack < PACK_NUMBERS and self.offset >= FIRST_CHUNK and 1 <= self.plain <= CHUNK_LIMIT):
            raise FormatError(f"a ref out of range: {self[:4]}")
        # The least: a method, one byte of body, a tag.
        if not 18 <= self.sealed <= self.plain + 17 or self.offset + self.sealed > PACK_LIMIT:
            raise FormatError(f"a ref with impossible lengths: {self[:4]}")
        return self


def decode_ref(d):
    return Ref(d.uvarint(), d.uvarint(), d.uvarint(), d.uvarint(), d.take(32)).check()


def json_ref(members):
    numbers = (members.number(name) for name in ("pack", "offset", "sealed", "plain"))
    return Ref(*numbers, members.hex("id", 32)).check()


class PackInfo(NamedTuple):
    """An entry of a pack list."""

    number: int
    id: bytes
    salt: bytes
    size: int


def decode_list(data):
    d = Decoder(data, "pack list")
    d.check(d.take(8) == b"HFLIST01", "not a pack list")
    packs, number = [], 0
    for _ in range(d.count(66)):
        number += d.uvarint(least=1)
        d.check(number < PACK_NUMBERS, "a pack number out of range")
        packs.append(PackInfo(number, d.take(32), d.take(32), d.uvarint(PACK_LIMIT + 1, PACK_LEAST)))
    d.end()
    return packs


def decode_index(plain, number):
    """Kind and ref of every chunk of a pack, and where the last one ends."""
    d, offset, chunks = Decoder(plain, "index"), FIRST_CHUNK, []
    count = d.count(35)
    d.check(count <= PACK_CHUNKS, "too many chunks")
    for _ in range(count):
        kind = chr(d.u8())
        d.check(kind in KINDS, f"unknown kind {kind!r}")
        chunk_id, sealed, plain_length = d.take(32), d.uvarint(), d.uvarint()
        chunks.append((kind, Ref(number, offset, sealed, plain_length, chunk_id).check()))
        offset += sealed
    d.end()
    return chunks, offset


class Pack:
    """The bytes of a pack, and the keys that open it."""

    def __init__(self, data, info, keys):
        self.data, self.info, self._keys = data, info, keys
        if len(data) != info.size:
            raise FormatError(f"{len(data)} bytes, not {info.size}")
        if len(data) < PACK_LEAST or data[:8] != b"HFPACK01" or data[-8:] != b"HFPACKIX":
            raise FormatError("not a pack")
        if data[8:40] != info.salt:
            raise FormatError("another salt than in the list")
        self._cipher = keys.pack(info.salt)

    def chunk(self, kind, ref):
        sealed = self.data[ref.offset : ref.offset + ref.sealed]
        return self._keys.chunk(self._cipher, ref.offset, kind, ref.id, sealed, ref.plain)

    def index(self):
        """Kind and ref of every chunk, in order."""
        length = int.from_bytes(self.data[-TAIL:-8], "big")
        start = len(self.data) - TAIL - length
        if start < FIRST_CHUNK:
            raise FormatError("the index length is wrong")
        encoded = self._keys.open(self._cipher, start, "i", bytes(32), self.data[start:-TAIL])
        if encoded[:1] != b"\0":
            raise FormatError("the index is compressed")
        chunks, end = decode_index(encoded[1:], self.info.number)
        if end != start:
            raise FormatError("the chunks do not end where the index begins")
        return chunks
