"""Sections 6 and 9 of docs/format.md: what is stored of a PostgreSQL cluster."""

import re
from typing import NamedTuple

from .encoding import Decoder, FormatError, is_text

DECIMAL = re.compile("[1-9][0-9]{0,19}")
LSN = re.compile("(0|[1-9A-F][0-9A-F]{0,7})/(0|[1-9A-F][0-9A-F]{0,7})")
LINE = re.compile(r"[ \t\r\v\f]*([0-9]+)[ \t]+([0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})(?:[ \t].*)?")
WAL_LIMIT = 1 << 22
HISTORY_LIMIT = 1 << 22


def system(members):
    """A system identifier: 1 to 2**64-1 in decimal digits."""
    value = int(members.text("system", DECIMAL))
    if value >= 1 << 64:
        raise FormatError("system out of range")
    return value


def timeline(members):
    value = members.number("timeline", 1)
    if value >= 1 << 32:
        raise FormatError("timeline out of range")
    return value


def segment_size(members):
    value = members.number("segment_size", 1 << 20)
    if value > 1 << 30 or value & (value - 1):
        raise FormatError("WAL segments of a size that there is not")
    return value


def parse_lsn(text):
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


class Cluster:
    """What a head says of the WAL in its stream."""

    def __init__(self, members, stream):
        self.system, self.timeline, self.segment_size = system(members), timeline(members), segment_size(members)
        if not stream.startswith(f"{self.system:016x}{self.timeline:08x}"):
            raise FormatError("the stream has the id of another timeline or cluster")


class BaseBackup:
    """What a manifest says of a base backup."""

    def __init__(self, members):
        self.system, self.timeline, self.segment_size = system(members), timeline(members), segment_size(members)
        self.start, self.stop = (parse_lsn(members.text(name, LSN)) for name in ("start_lsn", "stop_lsn"))
        if not is_text(members.text("version")):
            raise FormatError("version is no text")
        if not 0 < self.start <= self.stop:
            raise FormatError("from where to where WAL is needed is not possible")


class Wal(NamedTuple):
    """The body of a record of type w."""

    start: int
    data: bytes

    @property
    def end(self):
        return self.start + len(self.data)


class History(NamedTuple):
    """The body of a record of type h."""

    timeline: int
    data: bytes

    def switches(self):
        """Where each timeline before this one was left, or None if that can not be read."""
        found, last = {}, (0, 0)
        try:
            lines = self.data.decode("latin-1").split("\n")
        except UnicodeDecodeError:
            return None
        for line in lines:
            if not line.strip(" \t\r\v\f") or line.lstrip(" \t\r\v\f").startswith("#"):
                continue
            match = LINE.fullmatch(line)
            if not match:
                return None
            parent, place = int(match[1]), parse_lsn(match[2])
            if not last[0] < parent < self.timeline or place < last[1]:
                return None
            last = (parent, place)
            found[parent] = place
        return found or None


def decode_wal(record, size=None):
    """The body of a record of kind postgres; size is that of WAL segments."""
    d = Decoder(record.body, "WAL")
    d.check(not record.more, "it is part of a transaction")
    kind, number = d.u8(), d.uvarint(1 << 64)
    data = d.take(d.left())
    if kind == ord("w"):
        d.check(0 < len(data) <= WAL_LIMIT and number + len(data) < 1 << 64, "too much WAL, or none")
        d.check(size is None or number // size == (number + len(data) - 1) // size, "of two segments")
        return Wal(number, data)
    d.check(kind == ord("h") and 2 <= number < 1 << 32 and 0 < len(data) <= HISTORY_LIMIT, "no WAL and no history")
    return History(number, data)


class Follower:
    """Follows WAL over records, epochs and timelines. What is wrong is returned as text."""

    def __init__(self):
        self.next, self.timeline, self.fresh, self.came_from, self.history = None, None, False, None, None

    @classmethod
    def after(cls, timeline_before, end):
        follower = cls()
        follower.timeline, follower.next = timeline_before, end
        return follower

    def enter(self, cluster, begins):
        """Goes over to an epoch; begins: of another stream, or of one that begins here."""
        if begins:
            self.fresh, self.came_from, self.history = True, self.timeline, None
        self.timeline = cluster.timeline

    def take(self, body, size):
        if isinstance(body, History):
            if body.timeline == self.timeline:
                self.history = body.switches()
                if self.history is None:
                    return "a history that can not be read"
            return None
        problem = self._begin(body.start, size) if self.fresh else None
        if not self.fresh and self.next is not None and body.start != self.next:
            problem = f"WAL goes on at {body.start:X}, not at {self.next:X}"
        self.fresh, self.next = False, body.end
        return problem

    def _begin(self, start, size):
        if start % size:
            return "the first WAL does not start with a segment"
        if self.came_from == self.timeline:
            missing = self.next is not None and start > self.next
            return f"WAL from {self.next:X} to {start:X} is missing" if missing else None
        if self.timeline == 1:
            return "timeline 1 comes from no other" if (self.came_from or 1) > 1 else None
        if self.history is None:
            return "the history of the timeline is missing"
        if self.came_from is None:
            return None
        if self.came_from not in self.history:
            return f"it does not come from timeline {self.came_from}"
        limits = [self.history[self.came_from], max(self.history.values())]
        if self.next is not None:
            limits.append(self.next)
        return f"WAL from {min(limits):X} to {start:X} is missing" if start > min(limits) else None
