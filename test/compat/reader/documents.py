"""Sections 2 to 4 of docs/format.md: the identity file, signed documents and who may sign them."""

import os
import re
import stat
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from . import age
from .encoding import NAME, FormatError, TooNew, bech32_decode, check_requires, parse_json, unbase64

DOCUMENT_LIMIT = 16 << 20
LINE2 = re.compile(rb'\{"signer":"([A-Za-z0-9+/=]{44})","signature":"([A-Za-z0-9+/=]{88})"\}')


class Trust:
    """Which signers are trusted for which hosts ("*": all), and for which parts of sources (None: see allows)."""

    def __init__(self, lines=()):
        self.lines = set(lines)

    def allows(self, signer, key):
        host, _, rest = key.removeprefix("v1/").partition("/")
        if host in ("access", "repository.json"):
            host, rest = "*", ""
        part = rest.partition("/")[2]
        return any(signer == line[0] and self._covers(line[1], line[2], host, part) for line in self.lines)

    @staticmethod
    def _covers(trusted, only, host, part):
        if trusted not in ("*", host):
            return False
        if only is None:
            return trusted == "*" or not part.startswith("receipts/cloud/")
        return any(name and part.startswith(name + "/") for name in only)


class IdentityFile:
    """Secret keys and pinned signers. Post-quantum age keys are passed over; this reader has no use for them."""

    def __init__(self, path):
        if stat.S_IMODE(os.stat(path).st_mode) & 0o077:
            raise FormatError("the identity file must have mode 0600")
        self.secrets, self.pinned, self.own = [], Trust(), None
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
        for line in lines:
            if not line or line.startswith("#"):
                continue
            if line.startswith("AGE-SECRET-KEY-1"):
                self.secrets.append(age.Identity(line))
            elif line.startswith("HOLDFAST-SIGNER-1") and self.own is None:
                self.own = public_key(bech32_decode(line, "holdfast-signer-"))
            elif words := re.fullmatch(r"trust\s+(\S+)\s+(\S+)", line):
                self.pinned.lines.add((unbase64(words[1], 32), host_name(words[2]), None))
            elif not line.startswith("AGE-SECRET-KEY-PQ-1"):
                raise FormatError("identity file: a line that is not specified")
        self._lines = frozenset(self.pinned.lines)
        if self.own:
            self.pinned.lines.add((self.own, "*", None))

    def pinned_beside(self, trust):
        """The pinned signers; not its own by itself, where the access document in force limits that one."""
        own = [only for signer, _, only in trust.lines if signer == self.own]
        return self._lines if own and None not in own else self.pinned.lines


def public_key(seed):
    if len(seed) != 32:
        raise FormatError("identity file: a signer's seed must have 32 bytes")
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def host_name(text):
    if text != "*" and not NAME.fullmatch(text):
        raise FormatError(f"{text!r} is not a host")
    return text


def recipient_id(kind, recipient):
    return sha256(f"{kind}:{recipient}".encode()).hexdigest()[:32]


def split(data):
    """Payload, signer and signature of a document, which is not verified."""
    if len(data) > DOCUMENT_LIMIT:
        raise FormatError("a document of more than 16 MiB")
    lines = data.split(b"\n")
    if len(lines) != 3 or lines[2]:
        raise FormatError("a document must have two lines")
    match = LINE2.fullmatch(lines[1])
    if not match:
        raise FormatError("the second line is not signer and signature")
    return lines[0], unbase64(match[1].decode(), 32), unbase64(match[2].decode(), 64)


def open_document(data, repository_id, key, trust):
    """The members of a document whose signature, by a trusted signer, was verified."""
    payload, signer, signature = split(data)
    if not trust.allows(signer, key):
        raise FormatError("signed by nobody who is trusted for it")
    message = b"\0".join([b"holdfast v1 document", repository_id.encode(), key.encode(), payload])
    try:
        Ed25519PublicKey.from_public_bytes(signer).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise FormatError("the signature is wrong") from error
    members = parse_json(payload, "payload")
    check_requires(members)
    return members


class RepositoryDocument:
    """v1/repository.json. Its own id is what its signature is checked with."""

    KEY = "v1/repository.json"

    def __init__(self, data, trust):
        claimed = parse_json(split(data)[0], "payload")
        claimed.hex("id", 16)
        self.id = claimed.text("id")
        members = open_document(data, self.id, self.KEY, trust)
        if members.number("format") != 1 or members.number("minimum_reader") > 1:
            raise TooNew("needs a newer reader")
        for feature in members.get("features", list):
            raise TooNew(f"feature {feature!r} is not known")
        members.time("created")


def signer_line(signer):
    """A line of trust from an item of signers."""
    only = None
    if "only" in signer.members:
        only = tuple(signer.get("only", list))
        if not all(isinstance(part, str) for part in only):
            raise FormatError("only must name parts of sources")
    return unbase64(signer.text("key"), 32), host_name(signer.text("host")), only


class AccessDocument:
    """v1/access/<seq>.json, checked against the one before it (None for number 1)."""

    def __init__(self, data, repository_id, sequence, before, pinned):
        trust = before.trust if before else pinned
        members = open_document(data, repository_id, f"v1/access/{sequence:010d}.json", trust)
        members.expect("sequence", sequence)
        members.expect("previous", before.hash if before else "")
        self.hash = sha256(data).hexdigest()
        self.recipients = {(r.text("type", ".+"), r.text("recipient", ".+")) for r in members.each("recipients")}
        self.trust = Trust(map(signer_line, members.each("signers")))
        for item in members.each("recipients") + members.each("signers"):
            item.get("label", str, "")
