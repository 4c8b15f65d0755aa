"""Decryption of age v1 files (C2SP age specification) that were encrypted to an X25519 recipient, binary form only."""

import hmac
import re
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .encoding import FormatError, bech32_decode, bech32_encode, unbase64

INTRO = b"age-encryption.org/v1\n"
SEGMENT = 64 * 1024 + 16


def _hkdf(key, salt, info):
    return HKDF(SHA256(), 32, salt or None, info).derive(key)


class Identity:
    """An X25519 secret key, as written in identity files: AGE-SECRET-KEY-1…"""

    def __init__(self, text):
        self._key = X25519PrivateKey.from_private_bytes(bech32_decode(text, "age-secret-key-"))
        self._public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.recipient = bech32_encode(self._public, "age")

    def _file_key(self, arguments, body):
        if len(arguments) != 1:
            raise FormatError("age: an X25519 stanza must have one argument")
        share = unbase64(arguments[0], 32, padded=False)
        if len(body) != 32:
            raise FormatError("age: the body of an X25519 stanza must have 32 bytes")
        try:
            secret = self._key.exchange(X25519PublicKey.from_public_bytes(share))
            wrap = _hkdf(secret, share + self._public, b"age-encryption.org/v1/X25519")
            return ChaCha20Poly1305(wrap).decrypt(bytes(12), body, None)
        except (InvalidTag, ValueError):
            return None

    def decrypt(self, data):
        """The plaintext of an age file; FormatError if it is not for this identity or not whole."""
        stanzas, header, tag, payload = _parse(data)
        for kind, arguments, body in stanzas:
            key = self._file_key(arguments, body) if kind == "X25519" else None
            if key is None:
                continue
            wanted = hmac.digest(_hkdf(key, b"", b"header"), header, sha256)
            if not hmac.compare_digest(wanted, tag):
                raise FormatError("age: the header was changed")
            return _payload(_hkdf(key, payload[:16], b"payload"), payload[16:])
        raise FormatError("age: not encrypted for this identity")


def _parse(data):
    """Stanzas, the bytes under the header's MAC, the MAC, and the payload."""
    if not data.startswith(INTRO):
        raise FormatError("age: not a binary age file")
    at, stanzas = len(INTRO), []
    while True:
        line, at = _line(data, at)
        if line.startswith("--- "):
            header = data[: at - len(line) - 1 + 3]
            return stanzas, header, unbase64(line[4:], 32, padded=False), data[at:]
        words = line.split(" ")
        if words[0] != "->" or len(words) < 2 or not all(re.fullmatch(r"[!-~]+", word) for word in words):
            raise FormatError("age: a malformed stanza")
        body = ""
        while True:
            line, at = _line(data, at)
            if len(line) > 64:
                raise FormatError("age: a line is too long")
            body += line
            if len(line) < 64:
                break
        stanzas.append((words[1], words[2:], unbase64(body, padded=False)))


def _line(data, at):
    end = data.find(b"\n", at)
    if end < 0:
        raise FormatError("age: the header ends too early")
    try:
        return data[at:end].decode("ascii"), end + 1
    except UnicodeDecodeError as error:
        raise FormatError("age: the header is not ASCII") from error


def _payload(key, data):
    out, cipher = b"", ChaCha20Poly1305(key)
    segments = [data[i : i + SEGMENT] for i in range(0, len(data), SEGMENT)] or [b""]
    for i, segment in enumerate(segments):
        last = i == len(segments) - 1
        try:
            plain = cipher.decrypt(i.to_bytes(11, "big") + bytes([last]), segment, None)
        except (InvalidTag, ValueError) as error:
            raise FormatError("age: the payload is damaged") from error
        if not plain and i > 0:
            raise FormatError("age: an empty last segment")
        out += plain
    return out
