"""Section 9 of docs/format.md: logs, their places, heads, pieces, segments and records."""

import re
from hashlib import sha256
from typing import NamedTuple

from .encoding import Decoder, FormatError, check_format, is_text
from .manifest import SEQUENCES, Place, data_keys
from .packs import CHUNK_LIMIT, FIRST_CHUNK, PACK_LEAST, TAIL, decode_index
from .wal import Cluster, Follower, Wal, decode_wal

NUMBER = r"(\d{10})"
OBJECT = re.compile(rf"v1/([^/]+/[^/]+)/log/([0-9a-f]{{32}})/{NUMBER}/(?:head\.json|(joined/)?{NUMBER}-{NUMBER})")
CUT = re.compile(rf"v1/([^/]+/[^/]+)/(condemned|expired)/log/([0-9a-f]{{32}})-{NUMBER}-{NUMBER}\.json")
RECORD_LIMIT = 16 << 20
RECORDS_LIMIT = 64 << 20
POSITION_LIMIT = 64 << 10
FIRST_PREVIOUS = bytes(32)
MORE = 1


class Head:
    """head.json, whose signature was checked."""

    def __init__(self, members, repository_id, source, stream, epoch):
        host, _, name = source.partition("/")
        check_format(members)
        members.expect("repository", repository_id)
        members.expect("host", host)
        members.expect("source", name)
        members.expect("stream", stream)
        members.expect("epoch", epoch)
        self.kind = members.text("kind", re.compile("[a-z][a-z0-9-]{0,62}"))
        self.opened = members.time("opened")
        if (self.kind == "postgres") != members.has("postgres"):
            raise FormatError("a cluster of another kind, or none")
        self.cluster = Cluster(members.object("postgres"), stream) if members.has("postgres") else None
        if not is_text(members.text("tool")):
            raise FormatError("tool is no text")
        self.keys = data_keys(members)
        self.continues = Place.parse(members.object("continues")) if members.has("continues") else None
        if self.continues and (
            self.continues.sequence == 0 or (self.continues.stream == stream and self.continues.epoch >= epoch)
        ):
            raise FormatError("continues nothing that was before it")


class Record(NamedTuple):
    """One record; hash is that of its bytes."""

    sequence: int
    previous: bytes
    time: int
    more: bool
    body: bytes
    hash: bytes


def decode_record(data):
    d = Decoder(data, "record")
    sequence, previous, time, flags = d.uvarint(SEQUENCES, 1), d.take(32), d.varint(), d.u8()
    d.check(flags in (0, MORE), "unknown flags")
    return Record(sequence, previous, time, flags == MORE, d.take(d.left()), sha256(data).digest())


def decode_records(plain, first, last):
    """The records of an object with this name, in order."""
    d, records = Decoder(plain, "records"), []
    while d.left():
        length = d.uvarint(RECORD_LIMIT + 1, 1)
        record = decode_record(d.take(length))
        if record.sequence != first + len(records) or record.sequence > last:
            raise FormatError(f"record {record.sequence} is none of its name")
        if records and record.previous != records[-1].hash:
            raise FormatError(f"record {record.sequence} does not follow the one before it")
        records.append(record)
    if len(records) != last - first + 1:
        raise FormatError("not all the records of its name")
    return records


class Pages(NamedTuple):
    """The body of a record of kind sqlite."""

    page_size: int
    size: int
    position: bytes
    pages: list  # (number, bytes)


def decode_pages(body):
    d = Decoder(body, "pages")
    page_size, size = d.uvarint(65537, 512), d.uvarint(1 << 32)
    d.check(page_size & (page_size - 1) == 0, "the page size is no power of two")
    position, number, pages = d.string(POSITION_LIMIT), 0, []
    for _ in range(d.count(page_size + 1)):
        number += d.uvarint(1 << 32, 1)
        d.check(number < 1 << 32, "a page number out of range")
        pages.append((number, d.take(page_size)))
    d.end()
    return Pages(page_size, size, position, pages)


def open_piece(data, keys):
    """The plain bytes of the records in a piece or a segment."""
    pack = data[:-32]
    if len(pack) < PACK_LEAST or sha256(pack).digest() != data[-32:]:
        raise FormatError("its bytes are not those that were stored")
    if pack[:8] != b"HFPACK01" or pack[-8:] != b"HFPACKIX":
        raise FormatError("not a pack")
    cipher = keys.pack(pack[8:40])
    start = len(pack) - TAIL - int.from_bytes(pack[-TAIL:-8], "big")
    if start < FIRST_CHUNK:
        raise FormatError("the index length is wrong")
    encoded = keys.open(cipher, start, "i", bytes(32), pack[start:-TAIL])
    if encoded[:1] != b"\0":
        raise FormatError("the index is compressed")
    chunks, end = decode_index(encoded[1:], 1)
    if end != start or any(kind != "l" for kind, _ in chunks):
        raise FormatError("chunks of another kind, or they do not end where the index begins")
    if sum(ref.plain for _, ref in chunks) > RECORDS_LIMIT:
        raise FormatError("too many bytes of records")
    plain = bytearray()
    for kind, ref in chunks:
        plain += keys.chunk(cipher, ref.offset, kind, ref.id, pack[ref.offset : ref.offset + ref.sealed], ref.plain)
        if ref.plain > CHUNK_LIMIT:
            raise FormatError("a chunk is too long")
    return bytes(plain)


class Epoch:
    """What is there of one epoch."""

    def __init__(self, source, stream, number):
        self.source, self.stream, self.number = source, stream, number
        self.head, self.keys, self.pieces, self.segments = None, None, [], []  # (first, last, key)

    def key(self, name):
        return f"v1/{self.source}/log/{self.stream}/{self.number:010d}/{name}"


class Logs:
    """All logs of a repository. Findings go to found(where, what)."""

    def __init__(self, repository, found):
        self.repository, self.found = repository, found
        self.epochs = {}  # (source, stream, number) -> Epoch
        self.removed = {}  # the same -> last record that retention removed
        self.records = {}  # the same -> {sequence: Record without body}
        self.bodies = {}  # of kind postgres: the same -> {sequence: Wal or History}
        self.claims = []  # (key, source, Place)

    def add(self, key):
        """Takes an object below log/; False if it is none."""
        match = OBJECT.fullmatch(key)
        if not match:
            return False
        source, stream, number = match[1], match[2], int(match[3])
        if number == 0 or (match[5] and not 1 <= int(match[5]) <= int(match[6])):
            return False
        epoch = self.epochs.setdefault((source, stream, number), Epoch(source, stream, number))
        if match[5] is None:
            members, _ = self.repository.document(key)
            epoch.head = Head(members, self.repository.id, source, stream, number)
            if epoch.head.continues:
                self.claims.append((key, source, epoch.head.continues))
        else:
            (epoch.segments if match[4] else epoch.pieces).append((int(match[5]), int(match[6]), key))
        return True

    def cut(self, key, members):
        """A document that announces or records the removal of records."""
        match = CUT.fullmatch(key)
        members.expect("stream", match[3])
        members.expect("epoch", int(match[4]))
        members.expect("sequence", int(match[5]))
        members.time("time")
        if match[2] == "expired":
            name = (match[1], match[3], int(match[4]))
            self.removed[name] = max(self.removed.get(name, 0), int(match[5]))

    def check(self):
        for name in sorted(self.epochs):
            epoch = self.epochs[name]
            if epoch.head is None:
                self.found(epoch.key("head.json"), "is missing or no good")
                continue
            self._read(name, epoch)
        for key, source, place in self.claims:
            self._claim(key, (source, place.stream, place.epoch), place)
        for name in sorted(self.epochs):
            if self.epochs[name].head:
                self._holes(name, self.epochs[name])
                if self.epochs[name].head.cluster:
                    self._follow(name, self.epochs[name])

    def _read(self, name, epoch):
        known = self.records.setdefault(name, {})
        try:
            epoch.keys = self.repository.unwrap_entries(epoch.head.keys, epoch.source, epoch.stream)
        except FormatError as error:
            self.found(epoch.key("head.json"), error)
            return
        for first, last, key in [*sorted(epoch.pieces), *sorted(epoch.segments)]:
            try:
                records = decode_records(open_piece(self.repository.store.read(key), epoch.keys), first, last)
                for record in records:
                    self._body(name, epoch, record)
                    if known.setdefault(record.sequence, record).hash != record.hash:
                        raise FormatError(f"record {record.sequence} is another in a piece, which counts")
            except FormatError as error:
                self.found(key, error)
        for sequence, record in sorted(known.items()):
            before = known[sequence - 1].hash if sequence - 1 in known else self._before(epoch, sequence)
            if before is not None and record.previous != before:
                self.found(epoch.key(f"{sequence:010d}"), "does not follow the record before it")

    def _body(self, name, epoch, record):
        if epoch.head.kind == "sqlite":
            decode_pages(record.body)
        if epoch.head.kind == "postgres":
            self.bodies.setdefault(name, {})[record.sequence] = decode_wal(record, epoch.head.cluster.segment_size)

    def _follow(self, name, epoch):
        """Whether WAL goes on where that of the record before it ended."""
        place, cluster = epoch.head.continues, epoch.head.cluster
        start, follower, begins = 1, Follower(), True
        if place:
            before = self.epochs.get((name[0], place.stream, place.epoch))
            ended = self._ended((name[0], place.stream, place.epoch), place.sequence)
            if not before or not before.head or not before.head.cluster or ended is None:
                start = None  # removed: what comes first is believed
            else:
                start, begins = place.sequence + 1, place.stream != name[1]
                follower = Follower.after(before.head.cluster.timeline, ended)
        bodies, due = self.bodies.get(name, {}), start
        if due in bodies:
            follower.enter(cluster, begins)
        for sequence, body in sorted(bodies.items()):
            if sequence != due:
                follower = Follower()
                follower.enter(cluster, False)
            problem = follower.take(body, cluster.segment_size)
            if problem:
                self.found(epoch.key(f"{sequence:010d}-{sequence:010d}"), problem)
            due = sequence + 1

    def _ended(self, name, sequence):
        """Where the WAL up to a record ends, if that is known."""
        bodies = self.bodies.get(name, {})
        while sequence in bodies and not isinstance(bodies[sequence], Wal):
            sequence -= 1
        return bodies[sequence].end if sequence in bodies else None

    @staticmethod
    def _before(epoch, sequence):
        """What the record before the epoch's first one must have as its hash; None if that is not known."""
        if epoch.head.continues is None:
            return FIRST_PREVIOUS if sequence == 1 else None
        return epoch.head.continues.record if sequence == epoch.head.continues.sequence + 1 else None

    def _claim(self, key, name, place):
        record = self.records.get(name, {}).get(place.sequence)
        if record and record.hash != place.record:
            self.found(key, f"names another record {place.sequence} than the one that is there")
        if name not in self.epochs and place.epoch and place.sequence > self.removed.get(name, 0):
            self.found(key, f"epoch {place.epoch} of stream {place.stream} is missing")

    def _holes(self, name, epoch):
        known = self.records.get(name, {})
        start = epoch.head.continues.sequence + 1 if epoch.head.continues else 1
        due = max(start, self.removed.get(name, 0) + 1)
        last = max([*known, *(p.sequence for _, s, p in self.claims if (s, p.stream, p.epoch) == name)], default=0)
        for sequence in range(due, last + 1):
            if sequence not in known:
                self.found(epoch.key(f"{sequence:010d}-{sequence:010d}"), "is missing, and did not expire")

    def branch(self, source, end, start):
        """Epochs and numbers of the records after the place start up to that of end (stream, epoch, sequence)."""
        stream, number, last = end
        parts = []
        while (stream, number) != (start.stream, start.epoch):
            name = (source, stream, number)
            if name not in self.epochs or self.epochs[name].head is None:
                raise FormatError(f"epoch {number} of stream {stream} is missing")
            before = self.epochs[name].head.continues
            parts.append((name, before.sequence + 1 if before else 1, last))
            if before is None:
                if start.sequence or start.stream != stream:
                    raise FormatError("the log does not lead there from the snapshot")
                break
            stream, number, last = before.stream, before.epoch, before.sequence
        else:
            if last < start.sequence:
                raise FormatError("the log goes on from before the snapshot")
            parts.append(((source, stream, number), start.sequence + 1, last))
        for name, first, last in reversed(parts):
            yield from ((name, sequence) for sequence in range(first, last + 1))

    def lines(self):
        """One line for each record: stream, epoch, sequence, time, flag, hash, and what it holds."""
        for name in sorted(self.records):
            for sequence, record in sorted(self.records[name].items()):
                if name in self.bodies:
                    body = self.bodies[name][sequence]
                    what = f"{body.start:X}" if isinstance(body, Wal) else f"history {body.timeline}"
                    text = (name[1], name[2], sequence, record.time, int(record.more), record.hash.hex(), what)
                    yield " ".join(map(str, (*text, len(body.data), sha256(body.data).hexdigest())))
                    continue
                pages = decode_pages(record.body)
                numbers = ",".join(str(number) for number, _ in pages.pages)
                content = sha256(b"".join(page for _, page in pages.pages)).hexdigest()
                text = (name[1], name[2], sequence, record.time, int(record.more), record.hash.hex())
                yield " ".join(map(str, (*text, pages.page_size, pages.size, numbers or "-", content)))
