"""Sections 4 and 5 of docs/format.md: the keys that a data key gives, and sealed chunks."""

import hmac
from hashlib import sha256

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .encoding import FormatError

CHUNK_LIMIT = 16 << 20
WINDOW_LIMIT = 16 << 20
KINDS = "dmtrxl"
SLICE = 1024


def _hkdf(key, salt, name):
    return HKDF(SHA256(), 32, salt, b"holdfast v1 " + name).derive(key)


def key_id(data_key, repository_id):
    return _hkdf(data_key, bytes.fromhex(repository_id), b"key id").hex()


def uvarint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class ChainKeys:
    """What opens the chunks of one chain: the data key, bound to repository, source and chain."""

    def __init__(self, data_key, repository_id, source, chain):
        self._data_key = data_key
        self._chunk_id_key = _hkdf(data_key, None, b"chunk id")
        self._file_id_key = _hkdf(data_key, None, b"file id")
        name = uvarint(len(source)) + source.encode()
        self._context = b"holdfast v1 chunk\0" + bytes.fromhex(repository_id) + name + bytes.fromhex(chain)

    def chunk_id(self, kind, plain):
        return hmac.digest(self._chunk_id_key, kind.encode() + plain, sha256)

    def file_hash(self):
        """An HMAC whose digest begins with the file id of what is put into it."""
        return hmac.new(self._file_id_key, digestmod=sha256)

    def pack(self, salt):
        return AESGCM(_hkdf(self._data_key, salt, b"pack"))

    def open(self, cipher, offset, kind, chunk_id, sealed):
        """Method byte and body of the chunk at an offset of a pack."""
        try:
            context = self._context + kind.encode() + chunk_id
            return cipher.decrypt(offset.to_bytes(12, "big"), sealed, context)
        except (InvalidTag, ValueError) as error:
            raise FormatError(f"the chunk at {offset} does not open") from error

    def chunk(self, cipher, offset, kind, chunk_id, sealed, plain_length):
        """The plain bytes of a chunk, whose id was computed again."""
        encoded = self.open(cipher, offset, kind, chunk_id, sealed)
        if not encoded:
            raise FormatError(f"the chunk at {offset} has no method")
        method, body = encoded[0], encoded[1:]
        if method == 0:
            plain = body
        elif method == 1:
            plain = one_frame(body, plain_length)
        else:
            raise FormatError(f"the chunk at {offset} has method {method}")
        if len(plain) != plain_length:
            raise FormatError(f"the chunk at {offset} has {len(plain)} bytes, not {plain_length}")
        if self.chunk_id(kind, plain) != chunk_id:
            raise FormatError(f"the chunk at {offset} has another id")
        return plain


def one_frame(body, plain_length):
    """What exactly one zstd frame holds, within the limits of the format."""
    if len(body) > plain_length:
        raise FormatError("a compressed chunk is longer than its plain bytes")
    try:
        frame = zstandard.get_frame_parameters(body)
        if not body.startswith(b"\x28\xb5\x2f\xfd") or frame.dict_id or frame.window_size > WINDOW_LIMIT:
            raise FormatError("a zstd frame with a dictionary, too large a window, or none")
        if frame.content_size not in (plain_length, zstandard.CONTENTSIZE_UNKNOWN):
            raise FormatError("a zstd frame of another length")
        decoder = zstandard.ZstdDecompressor(max_window_size=WINDOW_LIMIT).decompressobj()
        # Of a frame that does not tell its length, a little at a time: it must not fill the memory.
        step = len(body) if frame.content_size == plain_length else SLICE
        plain = bytearray()
        for at in range(0, len(body), step):
            if decoder.eof:
                raise FormatError("bytes follow the zstd frame")
            plain += decoder.decompress(body[at : at + step])
            if len(plain) > plain_length:
                raise FormatError("a zstd frame holds more than the chunk's length")
        if not decoder.eof or decoder.unused_data:
            raise FormatError("not exactly one zstd frame")
        return bytes(plain)
    except zstandard.ZstdError as error:
        raise FormatError(f"zstd: {error}") from error
