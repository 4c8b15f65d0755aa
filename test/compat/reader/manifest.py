"""Section 6 of docs/format.md: manifests."""

import re
from hashlib import sha256
from typing import NamedTuple

from .encoding import NAME, FormatError, check_format, is_text, unbase64
from .packs import PACK_LIMIT, PACK_NUMBERS, json_ref
from .wal import BaseBackup

COUNTS = (
    *("files", "directories", "others", "bytes", "new_files", "changed_files"),
    *("read_bytes", "added_bytes", "added_packs", "errors", "not_consistent"),
)
SEQUENCES = 10_000_000_000
RESERVED = ("access", "repository.json")


class Place(NamedTuple):
    """Right after a record; of epoch and sequence 0: before the first of the stream."""

    stream: str
    epoch: int
    sequence: int
    record: bytes | None

    @classmethod
    def parse(cls, members):
        epoch, sequence = members.number("epoch"), members.number("sequence")
        if (epoch == 0) != (sequence == 0) or max(epoch, sequence) >= SEQUENCES:
            raise FormatError("a place that can not be")
        record = None
        if sequence:
            record = members.hex("record", 32)
        elif members.has("record") and members.get("record", str):
            raise FormatError("the beginning of a stream has no record")
        return cls(members.hex("stream", 16).hex(), epoch, sequence, record)


class Manifest:
    """A manifest whose signature was checked; members are the document's, data its bytes."""

    def __init__(self, members, data, repository_id, key):
        _, self.host, self.name, _, file = key.split("/")
        self.key, self.source, self.sequence = key, f"{self.host}/{self.name}", int(file[:10])
        self.id = f"{self.source}@{self.sequence}"
        self.hash = sha256(data).hexdigest()
        check_format(members)
        members.expect("repository", repository_id)
        members.expect("host", self.host)
        members.expect("source", self.name)
        members.expect("sequence", self.sequence)
        self._chain(members)
        self._objects(members)
        self._description(members)

    def _chain(self, members):
        self.type = members.text("type", "full|differential|incremental")
        self.previous, self.parent = members.text("previous"), members.number("parent")
        self.chain, self.chain_start = members.hex("chain", 16).hex(), members.number("chain_start", 1)
        if self.sequence == 1:
            members.expect("previous", "")
        else:
            members.hex("previous", 32)
        full = self.type == "full"
        if full != (self.parent == 0) or full != (self.chain_start == self.sequence):
            raise FormatError("type, parent and chain_start do not agree")
        if not full and not self.chain_start <= self.parent < self.sequence:
            raise FormatError("the parent is not earlier in the chain")
        if self.type == "differential" and self.parent != self.chain_start:
            raise FormatError("the parent of a differential is not its full")

    def _objects(self, members):
        self.keys = data_keys(members)
        self.lists = []
        for item in members.each("lists", 1):
            self.lists.append((item.hex("list", 32).hex(), *(item.number(name) for name in ("size", "packs", "bytes"))))
        if len({item[0] for item in self.lists}) != len(self.lists):
            raise FormatError("lists: the same twice")
        if not all(9 <= item[1] <= PACK_LIMIT for item in self.lists):
            raise FormatError("lists: of an impossible size")
        self.next_pack = members.number("next_pack", 1)
        self.without, least = [], 1
        for pair in members.get("without", list, []):
            if not isinstance(pair, list) or len(pair) != 2 or any(type(number) is not int for number in pair):
                raise FormatError("without: not a range")
            if not least <= pair[0] <= pair[1] < min(self.next_pack, PACK_NUMBERS):
                raise FormatError("without: ranges that are empty, touch, do not ascend or are too high")
            least = pair[1] + 2
            self.without.append(tuple(pair))
        self.root = json_ref(members.object("root"))
        self.report = json_ref(members.object("report")) if members.has("report") else None
        for ref in filter(None, (self.root, self.report)):
            if not self.uses(ref.pack) or ref.pack >= self.next_pack:
                raise FormatError("root or report are in a pack that is not the snapshot's")

    def _description(self, members):
        kind = members.text("kind", re.compile("[a-z][a-z0-9-]{0,62}"))
        members.time("started")
        members.time("finished")
        tags = members.get("tags", list, [])
        if not all(is_text(text) for text in [members.text("tool"), *tags]):
            raise FormatError("tool or tags are no texts")
        if len(set(tags)) != len(tags):
            raise FormatError("a tag occurs twice")
        counts = members.object("counts")
        self.counts = {name: counts.number(name) for name in COUNTS}
        self.partial = members.get("partial", bool)
        self.unfinished = members.get("unfinished", bool, False)
        if self.unfinished and not self.partial:
            raise FormatError("unfinished, and nothing is missing")
        self.cluster = BaseBackup(members.object("postgres")) if members.has("postgres") else None
        if self.cluster and kind != "postgres":
            raise FormatError("of a cluster, but not of kind postgres")
        self.log = Place.parse(members.object("log")) if members.has("log") else None
        if self.unfinished and self.log:
            raise FormatError("unfinished, and names a place in the log")

    def uses(self, number):
        """Whether a pack of the lists is one of the snapshot's."""
        return not any(first <= number <= last for first, last in self.without)


def data_keys(members):
    """Each data key with its entries; the first is that of the chain or the epoch."""
    keys = []
    for key in members.each("keys", 1):
        keys.append((key.hex("key", 32).hex(), [wrapped_key(item) for item in key.each("wrapped", 1)]))
    if len({name for name, _ in keys}) != len(keys):
        raise FormatError("keys: the same twice")
    return keys


def wrapped_key(item):
    """Type, recipient, and the data key wrapped for it."""
    kind, recipient, wrapped = item.text("type"), item.text("recipient"), unbase64(item.text("wrapped"))
    if not (kind and recipient and wrapped):
        raise FormatError("an empty member of wrapped")
    return kind, recipient, wrapped


def host_and_source(key):
    """Whether a key begins with v1/<host>/<source>/."""
    parts = key.split("/")
    names = NAME.fullmatch(parts[1]) and NAME.fullmatch(parts[2])
    return bool(names) and parts[1] not in RESERVED and parts[2] != "policy"
