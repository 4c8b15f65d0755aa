"""python -m reader.accept: for each line KIND HEX of the input, prints whether the bytes are what they should be."""

import sys

from .encoding import FormatError, check_requires, parse_json
from .logs import decode_pages, decode_record
from .manifest import Manifest, host_and_source
from .packs import decode_index, decode_list
from .tree import decode_map, decode_report, decode_root, decode_tree
from .wal import decode_wal


def manifest(data):
    members = parse_json(data, "manifest")
    check_requires(members)
    host, source, sequence = members.text("host"), members.text("source"), members.number("sequence", 1)
    key = f"v1/{host}/{source}/snapshots/{sequence:010d}.json"
    if sequence > 9_999_999_999 or "/" in host + source or not host_and_source(key):
        raise FormatError("no manifest could have this key")
    members.hex("repository", 16)
    Manifest(members, data, members.text("repository"), key)


DECODERS = {
    "tree": lambda data: list(decode_tree(data)),
    "map": decode_map,
    "root": decode_root,
    "list": decode_list,
    "index": lambda data: decode_index(data, 1),
    "report": decode_report,
    "record": lambda data: decode_pages(decode_record(data).body),
    "wal": lambda data: decode_wal(decode_record(data)),
    "history": lambda data: decode_wal(decode_record(data)),
    "manifest": manifest,
    "cluster": manifest,
}


def main():
    for line in sys.stdin:
        kind, _, data = line.strip().partition(" ")
        try:
            DECODERS[kind](bytes.fromhex(data))
            print("yes")
        except FormatError as error:
            print("no", ascii(str(error)))


if __name__ == "__main__":
    main()
