"""Checks everything that docs/format.md lets one check, and names what is wrong."""

import re
from hashlib import sha256

from .documents import recipient_id
from .encoding import FormatError, unhex
from .logs import Logs
from .manifest import host_and_source, wrapped_key
from .repository import Chain, Snapshot
from .tree import LINKED, UNREADABLE, decode_report, within

HEX32, HEX64, SEQUENCE = "[0-9a-f]{32}", "[0-9a-f]{64}", r"\d{10}"
STAMP = r"\d{8}T\d{6}\.\d{9}Z"
LEVELS = "structure|bytes|content|restore|key"
KINDS = {
    "manifest": rf"snapshots/{SEQUENCE}\.json",
    "key": rf"keys/{HEX64}/{HEX32}\.json",
    "pack": rf"packs/{HEX32}/{HEX64}",
    "list": rf"lists/{HEX64}",
    "receipt": rf"receipts/(host|cloud)/{STAMP}-({LEVELS})-{SEQUENCE}\.json",
    "mark": rf"marks/{SEQUENCE}/{HEX32}\.json",
    "condemned": rf"condemned/{SEQUENCE}\.json",
    "expired": rf"expired/{SEQUENCE}\.json",
    "damaged": rf"damaged/{HEX64}\.json",
    "cut": rf"(condemned|expired)/log/{HEX32}-{SEQUENCE}-{SEQUENCE}\.json",
    "piece_damaged": rf"damaged/log/{HEX32}-{SEQUENCE}-{SEQUENCE}-{SEQUENCE}-(piece|joined|head)\.json",
}


def kind_of(key):
    """What sort of object a key below v1/<host>/<source>/ names; None if it is not specified."""
    parts = key.split("/", 3)
    if len(parts) < 4 or not host_and_source(key):
        return None
    return next((kind for kind, form in KINDS.items() if re.fullmatch(form, parts[3])), None)


class Verifier:
    """Collects findings, one line each, in self.findings."""

    def __init__(self, repository):
        self.repository = repository
        self.findings = []
        self._manifests = {}  # source -> {sequence: manifest}
        self._hashes = {}  # source -> {sequence: hash of its manifest}, of those expired too
        self._previous = {}  # source -> {sequence: what its manifest says about the one before}
        self._claims = []  # (key, source, sequence, manifest hash) of documents about snapshots
        self._chains = {}  # (source, chain) -> Chain
        self._sound = {}  # (source, chain) -> {pack number: {offset: (kind, ref)}}
        self.logs = Logs(repository, self.found)

    def found(self, where, what):
        self.findings.append(f"{where}: {what}")

    def guard(self, where, call, *arguments):
        """What call returns; None, and a finding, if it refuses."""
        try:
            return call(*arguments)
        except FormatError as error:
            self.found(where, error)
            return None

    def run(self):
        for key in self.repository.keys:
            self.guard(key, self._object, key)
        for source in sorted(self._previous):
            self._link(source)
        for key, source, sequence, claimed in self._claims:
            if self._hashes.get(source, {}).get(sequence, claimed) != claimed:
                self.found(key, "is about another manifest than the one that is there")
        for source in sorted(self._manifests):
            for _, manifest in sorted(self._manifests[source].items()):
                self.guard(manifest.id, self._snapshot, manifest)
                if manifest.log:
                    self.logs.claims.append((manifest.key, source, manifest.log))
        self.logs.check()
        return self.findings

    def _object(self, key):
        if key == "v1/repository.json" or re.fullmatch(rf"v1/access/{SEQUENCE}\.json", key):
            return  # were checked when the repository was opened
        if key == "v1/access/copy":
            return  # says something by being there
        kind = kind_of(key)
        if kind is None and host_and_source(key) and self.logs.add(key):
            return
        if kind is None:
            raise FormatError("an object that is not specified")
        if kind in ("pack", "list"):
            if sha256(self.repository.store.read(key)).hexdigest() != key[-64:]:
                raise FormatError("its bytes do not have its name")
            return
        if kind == "manifest":
            manifest = self.repository.manifest(key)
            self._remember(manifest.source, manifest.sequence, manifest.hash, manifest.previous)
            self._manifests.setdefault(manifest.source, {})[manifest.sequence] = manifest
            return
        members, _ = self.repository.document(key)
        getattr(self, "_" + kind)(key, members)

    def _remember(self, source, sequence, manifest_hash, previous):
        if self._hashes.setdefault(source, {}).setdefault(sequence, manifest_hash) != manifest_hash:
            raise FormatError("expired and present, and not the same")
        self._previous.setdefault(source, {})[sequence] = previous

    def _about(self, key, members):
        """Checks that a document is about the snapshot that its key names."""
        sequence = int(re.search(rf"{SEQUENCE}(?=/|\.json)", key)[0])
        members.expect("sequence", sequence)
        members.hex("manifest", 32)
        self._claims.append((key, "/".join(key.split("/")[1:3]), sequence, members.text("manifest")))
        return sequence

    def _key(self, key, members):
        _, _, _, _, wanted, file = key.split("/")
        members.expect("key", wanted)
        members.hex("chain", 16)
        kind, recipient, data = wrapped_key(members)
        if recipient_id(kind, recipient) + ".json" != file:
            raise FormatError("the recipient is another than the name says")
        for secret in self.repository.identity.secrets:
            name = f"{kind}:{recipient}"
            if f"age:{secret.recipient}" == name and not self.repository.try_key(secret, name, data, wanted):
                raise FormatError("what is wrapped is not this key")

    def _receipt(self, key, members):
        self._about(key, members)
        members.text("level", LEVELS)
        members.text("result", "pass|fail")
        members.time("started"), members.time("finished")
        members.number("packs"), members.number("bytes"), members.get("problems", list)

    def _mark(self, key, members):
        self._about(key, members)
        members.text("mark", "pin|tag|hold")
        members.text("value")
        members.time("time")

    def _condemned(self, key, members):
        self._about(key, members)
        members.time("time")
        members.get("reasons", list)

    def _expired(self, key, members):
        sequence = self._about(key, members)
        members.time("time")
        source = "/".join(key.split("/")[1:3])
        self._remember(source, sequence, members.text("manifest"), members.text("previous"))

    def _cut(self, key, members):
        self.logs.cut(key, members)

    def _piece_damaged(self, key, members):
        stream, epoch, first, last, _ = key.rsplit("/", 1)[1].split("-")
        members.expect("stream", stream)
        for name, value in {"epoch": epoch, "first": first, "last": last}.items():
            members.expect(name, int(value))
        members.time("time")
        members.text("problem")

    def _damaged(self, key, members):
        members.expect("pack", key[-69:-5])
        unhex(members.text("chain"), 16)
        members.time("time")
        members.text("problem")

    def _link(self, source):
        hashes = self._hashes[source]
        for sequence, previous in sorted(self._previous[source].items()):
            if sequence > 1 and sequence in self._manifests.get(source, {}) and sequence - 1 not in hashes:
                self.found(f"v1/{source}/snapshots/{sequence - 1:010d}.json", "is missing, and did not expire")
            elif sequence > 1 and hashes.get(sequence - 1, previous) != previous:
                self.found(f"{source}@{sequence}", f"does not follow number {sequence - 1}: a rollback")

    def _snapshot(self, manifest):
        place = (manifest.source, manifest.chain)
        if place not in self._chains:
            keys = self.repository.unwrap(manifest)
            self._chains[place] = Chain(self.repository.store, manifest, keys)
            self._sound[place] = {}
        self._relatives(manifest)
        snapshot = Snapshot(self.repository, manifest, self._chains[place])
        for _, info in sorted(snapshot.packs.items()):
            if info.number not in self._sound[place]:
                self._sound[place][info.number] = self._pack(snapshot.chain, info)
        before = len(self.findings)
        Walk(self, snapshot, self._sound[place]).run()
        if len(self.findings) == before and snapshot.used != set(snapshot.packs):
            self.found(manifest.id, f"packs without live chunks: {sorted(set(snapshot.packs) - snapshot.used)}")

    def _relatives(self, manifest):
        known = self._manifests[manifest.source]
        for sequence in {manifest.parent, manifest.chain_start} - {0}:
            other = known.get(sequence)
            if other and (other.chain, other.chain_start) != (manifest.chain, manifest.chain_start):
                raise FormatError(f"number {sequence} is of another chain")
            if other and {key for key, _ in other.keys} != {key for key, _ in manifest.keys}:
                raise FormatError(f"number {sequence} has another key")

    def _pack(self, chain, info):
        """The chunks of a pack that are sound, by offset."""
        key, sound = chain.prefix + info.id.hex(), {}
        pack = self.guard(key, chain.read, info)
        if pack is None:
            return sound
        for kind, ref in self.guard(key, pack.index) or []:
            if kind == "l":
                self.found(key, "records of a log in a pack")
                continue
            if self.guard(key, pack.chunk, kind, ref) is not None:
                sound[ref.offset] = (kind, ref)
        return sound


class Walk:
    """Goes through everything that one snapshot refers to."""

    def __init__(self, verifier, snapshot, sound):
        self._verifier, self._snapshot, self._sound = verifier, snapshot, sound
        self._linked = {}

    def run(self):
        snapshot, guard = self._snapshot, self._verifier.guard
        self._ref("r", snapshot.manifest.root)
        roots, chunks = snapshot.root()
        if snapshot.manifest.report:
            self._ref("x", snapshot.manifest.report)
            decode_report(snapshot.chunk("x", snapshot.manifest.report))
        for _, ref in chunks:
            self._ref("t", ref)
        blocked, counts = None, {"files": 0, "directories": 0, "others": 0, "bytes": 0}
        for entry in snapshot.entries():
            counts[{"f": "files", "d": "directories"}.get(entry.type, "others")] += 1
            counts["bytes"] += entry.size
            where = f"{snapshot.manifest.id} {entry.path!r}"
            if not any(within(entry.path, root) for root in roots):
                self._verifier.found(where, "is in none of the roots")
            if blocked and within(entry.path, blocked):
                self._verifier.found(where, "is below something that is no directory")
            else:
                blocked = None if entry.type == "d" else entry.path
            guard(where, self._entry, entry)
        if counts.items() - snapshot.manifest.counts.items():
            self._verifier.found(snapshot.manifest.id, f"its counts should be {counts}")

    def _ref(self, kind, ref):
        """A ref must say what the pack's index says."""
        if ref.pack not in self._snapshot.packs:
            raise FormatError(f"pack {ref.pack} is not one of the snapshot's")
        found = self._sound.get(ref.pack, {}).get(ref.offset)
        if found is None:
            raise FormatError(f"needs the chunk at {ref.offset} of pack {ref.pack}, which is damaged or not there")
        if found != (kind, ref):
            raise FormatError(f"the chunk at {ref.offset} of pack {ref.pack} is another")
        self._snapshot.used.add(ref.pack)

    def _entry(self, entry):
        if entry.type != "f" or entry.flags & UNREADABLE:
            return
        for mapped in entry.maps:
            self._ref("m", mapped.ref)
        for extent in self._snapshot.extents(entry):
            if extent.ref:
                self._ref("d", extent.ref)
        if entry.file_id or entry.flags & LINKED:
            content = self._snapshot.chain.keys.file_hash()
            for _, length, data in self._snapshot.content(entry):
                content.update(bytes(length) if data is None else data)
            if entry.file_id and content.digest()[:16] != entry.file_id:
                raise FormatError("its content has another file id")
            if entry.flags & LINKED:
                self._same(entry, content.digest())

    def _same(self, entry, content):
        """All names of a file must have the same content; it may be in different chunks."""
        if self._linked.setdefault((entry.device, entry.inode), content) != content:
            raise FormatError("names of one file with different content")
