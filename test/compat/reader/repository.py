"""A repository in a directory: objects are files whose paths below the directory are the keys."""

import contextlib
import os
import re
from collections import OrderedDict
from hashlib import sha256

from .documents import AccessDocument, RepositoryDocument, Trust, open_document
from .encoding import FormatError
from .manifest import Manifest, host_and_source, wrapped_key
from .packs import Pack, decode_list
from .seal import ChainKeys, key_id
from .tree import check_map, check_path, decode_map, decode_root, decode_tree, order

MANIFEST = re.compile(r"v1/[^/]+/[^/]+/snapshots/\d{10}\.json")
ACCESS = re.compile(r"v1/access/\d{10}\.json")
OBJECT_LIMIT = 64 << 20
PACKS_IN_MEMORY = 3
CHUNKS_IN_MEMORY = 32


@contextlib.contextmanager
def naming(key):
    """Puts the object's key before what a FormatError says."""
    try:
        yield
    except FormatError as error:
        raise FormatError(f"{key}: {error}") from error


class Store:
    """The objects of a directory."""

    def __init__(self, directory):
        self._directory = directory

    def keys(self):
        """All keys, sorted."""
        for directory, names, files in os.walk(os.path.join(self._directory, "v1")):
            names.sort()
            for file in sorted(files):
                yield os.path.relpath(os.path.join(directory, file), self._directory)

    def read(self, key):
        try:
            with open(os.path.join(self._directory, key), "rb") as file:
                data = file.read(OBJECT_LIMIT + 1)
        except OSError as error:
            raise FormatError(f"read {key}: {error.strerror}") from error
        if len(data) > OBJECT_LIMIT:
            raise FormatError("larger than any object may be")
        return data


class Repository:
    """Documents of a repository, with signatures checked against the identity file's pinned signers."""

    def __init__(self, store, identity):
        self.store, self.identity = store, identity
        with naming(RepositoryDocument.KEY):
            self.id = RepositoryDocument(store.read(RepositoryDocument.KEY), identity.pinned).id
        self.keys = list(store.keys())
        self.access = None
        for sequence, key in enumerate(filter(ACCESS.fullmatch, self.keys), 1):
            with naming(key):
                if int(key[-15:-5]) != sequence:
                    raise FormatError(f"number {sequence} is missing")
                self.access = AccessDocument(store.read(key), self.id, sequence, self.access, identity.pinned)
        if self.access is None:
            raise FormatError("v1/access: nothing there")
        self.trust = Trust(identity.pinned_beside(self.access.trust) | self.access.trust.lines)

    def document(self, key):
        """The members and the bytes of a signed document."""
        data = self.store.read(key)
        return open_document(data, self.id, key, self.trust), data

    def manifest(self, key):
        members, data = self.document(key)
        return Manifest(members, data, self.id, key)

    def manifest_keys(self):
        return [key for key in self.keys if MANIFEST.fullmatch(key) and host_and_source(key)]

    def unwrap(self, manifest):
        """The keys of a manifest's chain, by its own entries or by key objects (of recipients added later)."""
        return self.unwrap_entries(manifest.keys, manifest.source, manifest.chain)

    def unwrap_entries(self, keys, source, chain):
        """The keys of a chain, or of an epoch of a stream, from the entries that a document repeats."""
        wanted, wrapped = keys[0]
        for secret in self.identity.secrets:
            for kind, recipient, data in [*wrapped, *self.key_objects(source, wanted)]:
                found = self.try_key(secret, f"{kind}:{recipient}", data, wanted)
                if found:
                    return ChainKeys(found, self.id, source, chain)
        raise FormatError("no key of the identity file opens it")

    def key_objects(self, source, wanted):
        """Type, recipient and wrapped key of each key object for a data key; what is damaged is left out."""
        prefix = f"v1/{source}/keys/{wanted}/"
        for key in self.keys:
            if key.startswith(prefix):
                with contextlib.suppress(FormatError):
                    yield wrapped_key(self.document(key)[0])

    def try_key(self, secret, recipient, data, wanted):
        """The data key with the wanted key id, or None."""
        if f"age:{secret.recipient}" != recipient:
            return None
        try:
            found = secret.decrypt(data)
        except FormatError:
            return None
        return found if len(found) == 32 and key_id(found, self.id) == wanted else None


class Chain:
    """The packs of one chain; those read last stay in memory."""

    def __init__(self, store, manifest, keys):
        self.store, self.keys = store, keys
        self.prefix = f"v1/{manifest.source}/packs/{manifest.chain}/"
        self.numbers = {}  # number -> PackInfo, of all lists of the chain
        self._packs, self._chunks = OrderedDict(), OrderedDict()

    def read(self, info):
        """A pack; its name is not checked."""
        if info.number not in self._packs:
            self._packs[info.number] = Pack(self.store.read(self.prefix + info.id.hex()), info, self.keys)
            while len(self._packs) > PACKS_IN_MEMORY:
                self._packs.popitem(last=False)
        self._packs.move_to_end(info.number)
        return self._packs[info.number]

    def chunk(self, info, kind, ref):
        place = (kind, ref)
        if place not in self._chunks:
            self._chunks[place] = self.read(info).chunk(kind, ref)
            while len(self._chunks) > CHUNKS_IN_MEMORY:
                self._chunks.popitem(last=False)
        self._chunks.move_to_end(place)
        return self._chunks[place]


class Snapshot:
    """One snapshot, opened."""

    def __init__(self, repository, manifest, chain):
        self.manifest, self.chain, self._repository = manifest, chain, repository
        self.packs = {}  # number -> PackInfo, of the packs that are the snapshot's
        for item in manifest.lists:
            for info in self._list(*item):
                if info.number in self.packs:
                    raise FormatError(f"pack {info.number} is in two lists")
                if chain.numbers.setdefault(info.number, info) != info:
                    raise FormatError(f"number {info.number} was given to two packs")
                self.packs[info.number] = info
        if self.packs and max(self.packs) >= manifest.next_pack:
            raise FormatError("next_pack is not free")
        self.packs = {number: info for number, info in self.packs.items() if manifest.uses(number)}
        self.used = set()

    def _list(self, name, size, packs, total):
        key = f"v1/{self.manifest.source}/lists/{name}"
        data = self._repository.store.read(key)
        if sha256(data).hexdigest() != name or len(data) != size:
            raise FormatError(f"{key}: not the bytes that the manifest names")
        infos = decode_list(data)
        if len(infos) != packs or sum(info.size for info in infos) != total:
            raise FormatError(f"{key}: not the packs that the manifest counts")
        return infos

    def chunk(self, kind, ref):
        if ref.pack not in self.packs:
            raise FormatError(f"pack {ref.pack} is not one of the snapshot's")
        self.used.add(ref.pack)
        return self.chain.chunk(self.packs[ref.pack], kind, ref)

    def root(self):
        """Roots, and (first path, ref) of each tree chunk."""
        return decode_root(self.chunk("r", self.manifest.root))

    def entries(self):
        """All entries, in order."""
        roots, chunks = self.root()
        last = b""
        for first, ref in chunks:
            for i, entry in enumerate(decode_tree(self.chunk("t", ref))):
                if i == 0 and entry.path != first:
                    raise FormatError(f"a tree chunk begins with another path than {first!r}")
                if last and order(entry.path) <= order(last):
                    raise FormatError(f"entries out of order at {entry.path!r}")
                last = check_path(entry.path)
                yield entry

    def extents(self, entry):
        """All extents of a file."""
        yield from entry.extents
        for mapped in entry.maps:
            yield from check_map(decode_map(self.chunk("m", mapped.ref)), mapped)

    def content(self, entry):
        """(offset, length, bytes) of each run of a file; None for the bytes of a hole."""
        at = 0
        for extent in self.extents(entry):
            data = None
            if extent.ref:
                data = self.chunk("d", extent.ref)[extent.offset : extent.offset + extent.length]
            yield at, extent.length, data
            at += extent.length
