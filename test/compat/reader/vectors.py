"""python -m reader.vectors FORMAT.MD: computes section 11 of docs/format.md, and prints what is wrong with it."""

import re
import sys
from hashlib import sha256

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .documents import Trust, open_document, public_key, recipient_id
from .encoding import FormatError
from .logs import decode_record
from .seal import ChainKeys, key_id

DOCUMENT = "v1/web/etc/snapshots/0000000042.json"


def read(path):
    with open(path, encoding="utf-8") as file:
        section = file.read().split("\n## 11. ")[1]
    return dict(re.findall(r"^    (\S(?:\S| (?=\S))*) {2,}(.+)$", section, re.MULTILINE))


def compute(given):
    """What follows from the given values, by the names that the document has for it."""
    data_key, repository = bytes.fromhex(given["data key"]), given["repository id"]
    keys = ChainKeys(data_key, repository, given["source"], given["chain"])
    salt, chunk = bytes.fromhex(given["salt"]), keys.chunk_id("d", b"abc")
    file_id = keys.file_hash()
    file_id.update(b"abc")
    gear = HKDF(SHA256(), 2048, None, b"holdfast v1 gear").derive(data_key)
    context = keys._context + b"d" + chunk
    record = bytes.fromhex(given["record, bytes"])
    decode_record(record)
    return {
        "key id": key_id(data_key, repository),
        "chunk id key": HKDF(SHA256(), 32, None, b"holdfast v1 chunk id").derive(data_key).hex(),
        "chunk id of content abc": chunk.hex(),
        "chunk id of tree abc": keys.chunk_id("t", b"abc").hex(),
        "file id of abc": file_id.digest()[:16].hex(),
        "gear table, first and last": f"{gear[:8].hex()} {gear[-8:].hex()}",
        "pack key": HKDF(SHA256(), 32, salt, b"holdfast v1 pack").derive(data_key).hex(),
        "associated data": context.hex(),
        "sealed content abc": keys.pack(salt).encrypt((40).to_bytes(12, "big"), b"\0abc", context).hex(),
        "recipient id of age:age1example": recipient_id("age", "age1example"),
        "record's hash": sha256(record).hexdigest(),
    }


def check(given):
    for name, value in compute(given).items():
        if given.get(name) != value:
            yield f"{name}: it is {value}"
    lines = bytes.fromhex(given["document's payload, bytes"]), given["document's second line"].encode(), b""
    trust = Trust([(public_key(bytes.fromhex(given["signer's seed"])), "*", None)])
    try:
        open_document(b"\n".join(lines), given["document's repository id"], DOCUMENT, trust)
    except FormatError as error:
        yield f"document: {error}"


def main():
    wrong = list(check(read(sys.argv[1])))
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
