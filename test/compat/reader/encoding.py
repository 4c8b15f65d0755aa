"""Section 1 of docs/format.md: integers, strings, hex, base64, times, names and JSON; and bech32 (BIP 173)."""

import base64
import binascii
import datetime
import json
import re


class FormatError(Exception):
    """Bytes are not as docs/format.md says."""


class TooNew(FormatError):
    """Something needs a newer reader, and may be sound."""


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?Z", re.ASCII)
UNSEEN = re.compile("[\0-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
UINT64 = 1 << 64


class Decoder:
    """Takes values off the front of bytes; end() must be called when all should be used."""

    def __init__(self, data, what):
        self.data = data
        self.at = 0
        self.what = what

    def refuse(self, text):
        raise FormatError(f"{self.what}: {text} (before byte {self.at})")

    def check(self, condition, text):
        if not condition:
            self.refuse(text)

    def left(self):
        return len(self.data) - self.at

    def take(self, count):
        if count > self.left():
            self.refuse("ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def u8(self):
        return self.take(1)[0]

    def uvarint(self, below=UINT64, least=0):
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift >= 70:
                self.refuse("an integer of more than 10 bytes")
        if (byte == 0 and shift > 7) or value >= UINT64:
            self.refuse("an integer is not in its shortest form, or too large")
        if not least <= value < below:
            self.refuse(f"{value} is out of range")
        return value

    def varint(self):
        value = self.uvarint()
        return (value >> 1) ^ -(value & 1)

    def string(self, limit=UINT64):
        size = self.uvarint()
        if size > limit:
            self.refuse("a string is too long")
        return self.take(size)

    def count(self, least_size):
        """A number of items which take at least least_size bytes each."""
        count = self.uvarint()
        if count * least_size > self.left():
            self.refuse("more items than bytes can hold")
        return count

    def end(self):
        if self.left():
            self.refuse("bytes follow the end")


def unhex(text, size):
    """Bytes of lower-case hexadecimal text."""
    if not isinstance(text, str) or not re.fullmatch(r"[0-9a-f]*", text) or len(text) != 2 * size:
        raise FormatError(f"not {2 * size} lower-case hexadecimal digits: {text!r}")
    return bytes.fromhex(text)


def unbase64(text, size=None, padded=True):
    """Bytes of standard base64, which must be the one encoding of them."""
    try:
        raw = base64.b64decode(text + ("" if padded else "=" * (-len(text) % 4)), validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise FormatError(f"not base64: {text!r}") from error
    again = base64.b64encode(raw).decode()
    if (again if padded else again.rstrip("=")) != text:
        raise FormatError(f"not canonical base64: {text!r}")
    if size is not None and len(raw) != size:
        raise FormatError(f"{len(raw)} bytes in base64, not {size}")
    return raw


def _pairs(pairs):
    members = dict(pairs)
    if len(members) != len(pairs):
        raise FormatError("a member occurs twice in a JSON object")
    return members


def _constant(text):
    raise FormatError(f"{text} is not JSON")


class Members:
    """The members of a JSON object. Each is asked for with its type; unknown members are ignored."""

    def __init__(self, members, what):
        if not isinstance(members, dict):
            raise FormatError(f"{what}: not a JSON object")
        self.members = members
        self.what = what

    def has(self, name):
        return name in self.members

    def get(self, name, kind, absent=None):
        """A member's value; absent, where given, if there is none (null is not none)."""
        value = self.members.get(name, absent)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise FormatError(f"{self.what}: member {name} is {value!r}, not {kind.__name__}")
        return value

    def number(self, name, least=0):
        value = self.get(name, int)
        if not least <= value < 1 << 63:
            raise FormatError(f"{self.what}: {name} is {value}")
        return value

    def text(self, name, form=None):
        value = self.get(name, str)
        if form is not None and not re.fullmatch(form, value):
            raise FormatError(f"{self.what}: {name} is {value!r}")
        return value

    def hex(self, name, size):
        return unhex(self.get(name, str), size)

    def time(self, name):
        text = self.text(name, TIME)
        year, month, day = (int(part) for part in TIME.fullmatch(text).group(1, 2, 3))
        try:
            datetime.date(year, month, day)
        except ValueError as error:
            raise FormatError(f"{self.what}: {name} is {text!r}") from error
        return text

    def expect(self, name, value):
        got = self.get(name, type(value))
        if got != value:
            raise FormatError(f"{self.what}: {name} is {got!r}, not {value!r}")

    def object(self, name):
        return Members(self.get(name, dict), f"{self.what}: {name}")

    def each(self, name, least=0):
        """The items of an array of objects."""
        items = self.get(name, list)
        if len(items) < least:
            raise FormatError(f"{self.what}: {name} has only {len(items)} items")
        return [Members(item, f"{self.what}: {name}") for item in items]


def parse_json(data, what):
    """The members of the one JSON object that data is."""
    try:
        return Members(json.loads(data.decode("utf-8"), object_pairs_hook=_pairs, parse_constant=_constant), what)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise FormatError(f"{what}: {error}") from error


def is_text(value):
    """Whether a value of JSON is a text as section 1 has them."""
    try:
        return isinstance(value, str) and 1 <= len(value.encode()) <= 256 and not UNSEEN.search(value)
    except UnicodeEncodeError:
        return False


def check_format(members):
    if members.number("format") != 1:
        raise TooNew(f"is of format {members.number('format')}")


def check_requires(members):
    """Refuses a document that needs an addition to the format: version 1 has none."""
    wanted = members.get("requires", list, [])
    if wanted:
        raise TooNew(f"needs a newer reader, which knows {wanted!r}")


BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def bech32_decode(text, prefix):
    """The bytes of bech32 text, whose prefix must be the given one (lower case)."""
    if text not in (text.lower(), text.upper()):
        raise FormatError("bech32 of mixed case")
    text = text.lower()
    found, _, data = text.rpartition("1")
    if found != prefix or len(data) < 6 or any(letter not in BECH32 for letter in data):
        raise FormatError(f"not bech32 with prefix {prefix}")
    values = [BECH32.index(letter) for letter in data]
    expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    if _polymod(expanded + values) != 1:
        raise FormatError("bech32 checksum is wrong")
    bits = count = 0
    out = bytearray()
    for value in values[:-6]:
        bits = (bits << 5 | value) & 0xFFF
        count += 5
        if count >= 8:
            count -= 8
            out.append(bits >> count & 0xFF)
    if count >= 5 or bits & ((1 << count) - 1):
        raise FormatError("bech32 padding is wrong")
    return bytes(out)


def bech32_encode(data, prefix):
    """Bech32 text (lower case) of bytes."""
    bits = int.from_bytes(data, "big") << (-len(data) * 8 % 5)
    size = (len(data) * 8 + 4) // 5
    values = [bits >> 5 * (size - 1 - i) & 31 for i in range(size)]
    expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    check = _polymod(expanded + values + [0] * 6) ^ 1
    values += [check >> 5 * (5 - i) & 31 for i in range(6)]
    return prefix + "1" + "".join(BECH32[value] for value in values)


def _polymod(values):
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for i, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> i & 1 else 0
    return check
