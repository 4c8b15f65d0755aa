"""What is in a snapshot, and states after it: the records of a log on top of a snapshot (section 9)."""

import base64
import json
import os
from hashlib import sha256

from .encoding import FormatError
from .logs import Logs, decode_pages
from .repository import Chain, Snapshot
from .tree import LINKED
from .wal import Wal


def open_snapshot(repository, name):
    source, _, sequence = name.partition("@")
    manifest = repository.manifest(f"v1/{source}/snapshots/{int(sequence):010d}.json")
    return Snapshot(repository, manifest, Chain(repository.store, manifest, repository.unwrap(manifest)))


def text(data):
    return base64.b64encode(data).decode()


def describe(snapshot):
    """One line of JSON for each entry; what is said of a link is the first of its names."""
    first = {}
    for entry in snapshot.entries():
        line = {"path": text(entry.path), "type": entry.type, "mode": entry.mode, "uid": entry.uid, "gid": entry.gid}
        line["mtime"] = "{}.{:09d}".format(*divmod(entry.mtime, 10**9))
        if entry.type == "f":
            content = sha256()
            for _, length, data in snapshot.content(entry):
                content.update(bytes(length) if data is None else data)
            line |= {"size": entry.size, "sha256": content.hexdigest()}
        if entry.type == "l":
            line["target"] = text(entry.target)
        if entry.type in "cb":
            line["rdev"] = list(entry.rdev)
        if entry.xattrs:
            line["xattrs"] = {text(name): text(value) for name, value in entry.xattrs}
        if entry.flags & LINKED:
            line["linked"] = text(first.setdefault((entry.device, entry.inode), entry.path))
        yield json.dumps(line, sort_keys=True, separators=(",", ":"))


def read_logs(repository, name):
    """The logs of a snapshot's source; what is wrong with them is an error."""

    def found(where, what):
        raise FormatError(f"{where}: {what}")

    logs, prefix = Logs(repository, found), f"v1/{name.partition('@')[0]}/"
    for key in repository.keys:
        if key.startswith(prefix + "log/"):
            logs.add(key)
        if key.startswith(prefix + "expired/log/"):
            logs.cut(key, repository.document(key)[0])
    logs.check()
    return logs


def restore_state(logs, name, stream, epoch, sequence, target):
    """Restores the state right after a record: a database to a file, WAL of PostgreSQL to a directory."""
    snapshot = open_snapshot(logs.repository, name)
    start = snapshot.manifest.log
    if start is None:
        raise FormatError("the snapshot names no place in a log")
    records = list(logs.branch(snapshot.manifest.source, (stream, epoch, sequence), start))
    if logs.epochs[records[-1][0]].head.cluster:
        _wal(logs, records, target)
    else:
        _database(snapshot, [logs.records[where][number] for where, number in records], target)


def _database(snapshot, records, target):
    (entry,) = snapshot.entries()
    content = bytearray(entry.size)
    for at, length, data in snapshot.content(entry):
        content[at : at + length] = bytes(length) if data is None else data
    if records[-1].more:
        raise FormatError("the transaction of the record goes on: it is no state")
    for record in records:
        pages = decode_pages(record.body)
        for number, data in pages.pages:
            end = number * pages.page_size
            content.extend(bytes(max(0, end - len(content))))
            content[end - pages.page_size : end] = data
        if not record.more:
            content[:] = content[: pages.size * pages.page_size].ljust(pages.size * pages.page_size, b"\0")
    with open(target, "xb") as file:
        file.write(content)


def _wal(logs, records, target):
    os.mkdir(target)
    for where, number in records:
        body, cluster = logs.bodies[where][number], logs.epochs[where].head.cluster
        if not isinstance(body, Wal):
            with open(os.path.join(target, f"{body.timeline:08X}.history"), "wb") as file:
                file.write(body.data)
            continue
        segment, each = body.start // cluster.segment_size, (1 << 32) // cluster.segment_size
        file_name = f"{cluster.timeline:08X}{segment // each:08X}{segment % each:08X}"
        path = os.path.join(target, file_name)
        with open(path, "r+b" if os.path.exists(path) else "xb") as file:
            file.seek(body.start % cluster.segment_size)
            file.write(body.data)
