"""python forge.py REPOSITORY IDENTITY HOST/SOURCE@N DIR: copies a repository with forgeries of its newest snapshot.

All is signed and sealed with the identity's keys, as a faulty or hostile writer could. Each copy is a directory in DIR;
for each, a line of JSON tells the case, the directory, and what the reader finds.
"""

import base64
import json
import os
import shutil
import struct
import sys
from hashlib import sha256

import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from reader.documents import IdentityFile, split
from reader.encoding import FormatError, bech32_decode
from reader.repository import Repository, Store
from reader.seal import uvarint
from reader.verify import Verifier


def string(data):
    return uvarint(len(data)) + data


def hole(length):
    return b"\0" + uvarint(length)


class Writer:
    """Makes one pack, and a snapshot of it."""

    def __init__(self, directory, identity, name):
        self.directory = directory
        repository = Repository(Store(directory), IdentityFile(identity))
        with open(identity, encoding="utf-8") as file:
            seed = next(line.strip() for line in file if line.startswith("HOLDFAST-SIGNER-"))
        self._signer = Ed25519PrivateKey.from_private_bytes(bech32_decode(seed, "holdfast-signer-"))
        self.source, _, sequence = name.partition("@")
        self.key = f"v1/{self.source}/snapshots/{int(sequence):010d}.json"
        self._repository, self._keys = repository, repository.unwrap(repository.manifest(self.key))
        self.manifest = json.loads(split(repository.store.read(self.key))[0])
        self.number = self.manifest["next_pack"]
        self._salt = os.urandom(32)
        self._cipher = self._keys.pack(self._salt)
        self._pack, self._index, self._count = bytearray(b"HFPACK01" + self._salt), b"", 0

    def put(self, key, data):
        path = os.path.join(self.directory, key)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.exists(path):
            os.remove(path)
        with open(path, "wb") as file:
            file.write(data)

    def sign(self, key, members):
        payload = json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode()
        message = b"\0".join([b"holdfast v1 document", self._repository.id.encode(), key.encode(), payload])
        public = self._signer.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        texts = [base64.b64encode(data).decode() for data in (public, self._signer.sign(message))]
        self.put(key, payload + b'\n{"signer":"%s","signature":"%s"}\n' % tuple(t.encode() for t in texts))

    def _seal(self, kind, chunk_id, encoded):
        nonce = len(self._pack).to_bytes(12, "big")
        return self._cipher.encrypt(nonce, encoded, self._keys._context + kind.encode() + chunk_id)

    def chunk(self, kind, plain, encoded=None, chunk_id=None, listed=None):
        """Adds a chunk, and returns its ref as pack, offset, sealed, plain, id."""
        chunk_id = chunk_id or self._keys.chunk_id(kind, plain)
        sealed = self._seal(kind, chunk_id, b"\0" + plain if encoded is None else encoded)
        ref = (self.number, len(self._pack), len(sealed), len(plain), chunk_id)
        self._pack += sealed
        self._index += (listed or kind).encode() + chunk_id + uvarint(len(sealed)) + uvarint(len(plain))
        self._count += 1
        return ref

    def file_id(self, content):
        mac = self._keys.file_hash()
        mac.update(content)
        return mac.digest()[:16]

    def finish(self, root, index=None):
        """Writes pack, list and manifest."""
        plain = (b"\0" + uvarint(self._count) + self._index) if index is None else index
        sealed = self._seal("i", bytes(32), plain)
        pack = bytes(self._pack) + sealed + struct.pack(">I", len(sealed)) + b"HFPACKIX"
        name = sha256(pack).digest()
        self.put(f"v1/{self.source}/packs/{self.manifest['chain']}/{name.hex()}", pack)
        infos = b"HFLIST01\x01" + uvarint(self.number) + name + self._salt + uvarint(len(pack))
        listed = sha256(infos).hexdigest()
        self.put(f"v1/{self.source}/lists/{listed}", infos)
        item = {"list": listed, "size": len(infos), "packs": 1, "bytes": len(pack)}
        names = ("pack", "offset", "sealed", "plain")
        reference = dict(zip(names, root[:4], strict=True)) | {"id": root[4].hex()}
        self.manifest |= {"lists": [item], "next_pack": self.number + 1, "root": reference}
        self.manifest.pop("without", None)
        self.manifest.pop("report", None)

    def save(self):
        self.sign(self.key, self.manifest)


def ref(r):
    return b"".join(uvarint(number) for number in r[:4]) + r[4]


def data(r, offset=0, length=None):
    return b"\1" + ref(r) + uvarint(offset) + uvarint(r[3] if length is None else length)


def entry(path, kind, rest=b"", flags=0, inode=1, previous=b""):
    shared = len(os.path.commonprefix([path, previous]))
    numbers = uvarint(flags) + uvarint(0o700) + uvarint(0) + uvarint(0) + b"\0\0" + b"\0" * 4 + b"\1" + uvarint(inode)
    return string(uvarint(shared) + string(path[shared:]) + kind.encode() + numbers + rest)


def regular(size, *extents):
    return uvarint(size) + b"\0" + uvarint(len(extents)) + b"".join(extents)


class Case:
    """What the snapshot holds; the forgeries below change one thing each."""

    def __init__(self, writer, **changes):
        self.w = writer
        content = b"content of a file" * 10
        c = writer.chunk("d", content, **changes.get("chunk", {}))
        self.roots, self.content = [b"/r"], c
        self.file = changes.get("file") or (lambda c: regular(c[3], data(c)))
        self.flags, self.id = 0, b""
        self.entries = [(b"/r", "d", b"", {}), (b"/r/f", "f", self.file(c), {})]
        self.first, self.counts = None, None

    def finish(self, index=None):
        chunk, previous = b"", b""
        for path, kind, rest, options in self.entries:
            chunk += entry(path, kind, rest, previous=previous, **options)
            previous = path
        tree = self.w.chunk("t", chunk)
        first = self.first or self.entries[0][0]
        roots = uvarint(len(self.roots)) + b"".join(map(string, self.roots))
        root = self.w.chunk("r", roots + b"\1" + string(first) + ref(tree))
        self.w.finish(root, index)
        kinds = [kind for _, kind, _, _ in self.entries]
        counts = {"files": kinds.count("f"), "directories": kinds.count("d")}
        counts["others"] = len(kinds) - sum(counts.values())
        counts["bytes"] = self.size(self.content[3])
        self.w.manifest["counts"] |= counts

    def size(self, size):
        return size * sum(kind == "f" for _, kind, _, _ in self.entries)


def build(writer, change=None, index=None, **changes):
    case = Case(writer, **changes)
    if change:
        change(case)
    case.finish(index)


def manifest(change):
    def forge(writer):
        build(writer)
        change(writer.manifest)

    return forge


def tree(change):
    return lambda writer: build(writer, change)


def chunk(**how):
    return lambda writer: build(writer, chunk=how)


def add(path, kind, rest=b"", **options):
    return tree(lambda case: case.entries.append((path, kind, rest, options)))


def second(rest):
    """Another file whose extents are made of the first one's chunk."""
    return tree(lambda case: case.entries.append((b"/r/g", "f", rest(case.content), {})))


def frame(plain=b"content of a file" * 10, **how):
    return zstandard.ZstdCompressor(**how).compress(plain)


def bad_map(packs, length=0):
    def forge(case):
        plain = b"\1" + hole((9 << 20) + length)
        m = case.w.chunk("m", plain)
        rest = uvarint(9 << 20) + b"\1\1" + ref(m) + uvarint(9 << 20) + packs
        case.entries.append((b"/r/g", "f", rest, {}))
        case.size = lambda size: size + (9 << 20)

    return tree(forge)


def wrong_file_id(case):
    path, kind, rest, _ = case.entries[1]
    at = len(uvarint(case.content[3]))
    case.entries[1] = (path, kind, rest[:at] + bytes(16) + rest[at:], {"flags": 4})


def linked(case):
    other = case.w.chunk("d", b"another content.." * 10)
    case.entries[1] = (*case.entries[1][:3], {"flags": 2, "inode": 7})
    case.entries.append((b"/r/g", "f", regular(other[3], data(other)), {"flags": 2, "inode": 7}))


def document(place, **changes):
    """A signed document about the snapshot, whose number stands for the # of its place."""

    def forge(writer):
        build(writer)
        writer.save()
        with open(os.path.join(writer.directory, writer.key), "rb") as file:
            found = sha256(file.read()).hexdigest()
        sequence = writer.manifest["sequence"]
        members = {"sequence": sequence, "manifest": found, "time": "2026-01-02T03:04:05Z"} | changes
        place_of = place.replace("#", f"{sequence:010d}")
        writer.sign(f"v1/{writer.source}/{place_of}.json", members)

    return forge


def with_object(key):
    def forge(writer):
        build(writer)
        writer.put(key.replace("S", "v1/" + writer.source), b"something")

    return forge


def extra_pack(used):
    """A second list, whose one pack is damaged in no way but not needed; or which without leaves out."""

    def forge(writer):
        lists = writer.manifest["lists"]
        build(writer)
        writer.manifest["lists"] += lists
        if not used:
            writer.manifest["without"] = [[1, writer.number - 1]]

    return forge


CASES = {
    "sound": build,
    "sound, with a map": bad_map(b"\0"),
    "sound, without packs of a list": extra_pack(used=False),
    "packs without live chunks": extra_pack(used=True),
    "pack of the root left out": manifest(lambda m: m.update(without=[[m["root"]["pack"]] * 2])),
    "parent of another chain": manifest(lambda m: m.update(type="incremental", parent=2, chain_start=2)),
    "parent of a differential": manifest(lambda m: m.update(type="differential", parent=2)),
    "full with a parent": manifest(lambda m: m.update(type="full")),
    "unfinished, and nothing missing": manifest(lambda m: m.update(unfinished=True)),
    "sound, unfinished": manifest(lambda m: m.update(unfinished=True, partial=True)),
    "condemned, another number": document("condemned/#", reasons=[], sequence=1),
    "condemned, another manifest": document("condemned/#", reasons=[], manifest="0" * 64),
    "expired, and present with another hash": document("expired/#", previous="0" * 64, manifest="0" * 64),
    "mark, another number": document("marks/#/" + "0" * 32, mark="pin", value="", sequence=1),
    "mark of an unknown kind": document("marks/#/" + "0" * 32, mark="other", value=""),
    "receipt, another manifest": document(
        "receipts/host/20260102T030405.000000000Z-bytes-#",
        manifest="0" * 64,
        level="bytes",
        result="pass",
        packs=1,
        bytes=1,
        problems=[],
        started="2026-01-02T03:04:05Z",
        finished="2026-01-02T03:04:05Z",
    ),
    "sound, receipt of a key": document(
        "receipts/host/20260102T030405.000000000Z-key-#",
        level="key",
        result="pass",
        packs=0,
        bytes=0,
        problems=[],
        recipients=["age1x"],
        started="2026-01-02T03:04:05Z",
        finished="2026-01-02T03:04:05Z",
    ),
    "damaged, another pack": document("damaged/" + "0" * 64, pack="1" * 64, chain="0" * 32, problem="x"),
    "object of no kind": with_object("S/others/x"),
    "object that is no pack": with_object("S/packs/" + "0" * 32 + "/x"),
    "list with another count of packs": manifest(lambda m: m["lists"][0].update(packs=2)),
    "list with another sum of bytes": manifest(lambda m: m["lists"][0].update(bytes=m["lists"][0]["bytes"] + 1)),
    "list with another size": manifest(lambda m: m["lists"][0].update(size=m["lists"][0]["size"] + 1)),
    "counts of files": manifest(lambda m: m["counts"].update(files=7)),
    "counts of bytes": manifest(lambda m: m["counts"].update(bytes=7)),
    "next pack that is used": manifest(lambda m: m.update(next_pack=m["next_pack"] - 1)),
    "previous of another": manifest(lambda m: m.update(previous="0" * 64)),
    "chain of another": manifest(lambda m: m.update(chain="0" * 32)),
    "key of another": manifest(lambda m: m["keys"][0].update(key="0" * 64)),
    "root of another length": manifest(lambda m: m["root"].update(plain=m["root"]["plain"] + 1)),
    "root of another id": manifest(lambda m: m["root"].update(id="0" * 64)),
    "entry out of all roots": add(b"/s", "d"),
    "entry below a file": add(b"/r/f/g", "d"),
    "entry below a symlink": tree(
        lambda case: case.entries.extend([(b"/r/g", "l", string(b"/etc"), {}), (b"/r/g/h", "d", b"", {})])
    ),
    "no roots": tree(lambda case: case.roots.clear()),
    "tree chunk with another first path": tree(lambda case: setattr(case, "first", b"/q")),
    "file id of another content": tree(wrong_file_id),
    "names of one file, contents of two": tree(linked),
    "extent of a chunk that is longer": second(lambda c: regular(180, data((*c[:3], 180, c[4])))),
    "extent of a chunk that is shorter": second(lambda c: regular(160, data((*c[:3], 160, c[4])))),
    "extent of a chunk elsewhere": second(lambda c: regular(c[3], data((c[0], c[1] + 1, *c[2:])))),
    "extent in a pack that is not there": second(lambda c: regular(c[3], data((c[0] + 5, *c[1:])))),
    "map of another length": bad_map(b"\0", length=1),
    "map that uses no such pack": bad_map(b"\1\1\0"),
    "chunk with another id": chunk(chunk_id=bytes(32)),
    "chunk listed as of another kind": chunk(listed="m"),
    "chunk with an unknown method": chunk(encoded=b"\2" + b"content of a file" * 10),
    "chunk longer than its length": chunk(encoded=b"\1" + frame(b"content of a file" * 11)),
    "chunk of two frames": chunk(encoded=b"\1" + frame(b"content of a file" * 5) * 2),
    "chunk with bytes after its frame": chunk(encoded=b"\1" + frame() + b"\0"),
    "chunk with a frame to skip": chunk(encoded=b"\1\x50\x2a\x4d\x18\1\0\0\0x" + frame()),
    "chunk with a frame that is cut": chunk(encoded=b"\1" + frame()[:-1]),
    "chunk with a checksum that is wrong": chunk(encoded=b"\1" + frame(write_checksum=True)[:-1] + b"\0"),
    "index that is compressed": lambda writer: build(writer, index=b"\1" + frame(b"\0")),
    "index without chunks": lambda writer: build(writer, index=b"\0\0"),
    "index with bytes after it": lambda writer: build(writer, index=b"\0\0\0"),
}


def findings(directory, identity):
    try:
        return [str(finding) for finding in Verifier(Repository(Store(directory), IdentityFile(identity))).run()]
    except FormatError as error:
        return [str(error)]


def main():
    repository, identity, snapshot, target = sys.argv[1:]
    for number, (name, forge) in enumerate(CASES.items()):
        directory = os.path.join(target, str(number))
        shutil.copytree(repository, directory)
        writer = Writer(directory, identity, snapshot)
        forge(writer)
        writer.save()
        print(json.dumps({"case": name, "directory": directory, "findings": findings(directory, identity)}))


if __name__ == "__main__":
    main()
