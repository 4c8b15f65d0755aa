"""python -m reader REPOSITORY IDENTITY {snapshots | verify | records | restore HOST/SOURCE@N DIR}"""

import argparse
import sys

from .documents import IdentityFile
from .encoding import FormatError
from .repository import Chain, Repository, Snapshot, Store
from .restore import Restorer
from .verify import Verifier


def parse():
    parser = argparse.ArgumentParser(prog="reader", description="Reads Holdfast repositories in a directory.")
    parser.add_argument("repository", help="directory of the repository")
    parser.add_argument("identity", help="identity file")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("snapshots", help="list snapshots")
    commands.add_parser("verify", help="print what is wrong, one finding a line")
    commands.add_parser("records", help="print the records of all logs, one a line")
    restore = commands.add_parser("restore", help="restore a snapshot into a new directory")
    restore.add_argument("snapshot", help="HOST/SOURCE@N")
    restore.add_argument("target", help="directory that is made")
    return parser.parse_args()


def restore(repository, name, target):
    source, _, sequence = name.partition("@")
    manifest = repository.manifest(f"v1/{source}/snapshots/{int(sequence):010d}.json")
    chain = Chain(repository.store, manifest, repository.unwrap(manifest))
    restorer = Restorer(Snapshot(repository, manifest, chain), target)
    restorer.run()
    for note in restorer.notes:
        print(note, file=sys.stderr)


def main():
    arguments = parse()
    try:
        repository = Repository(Store(arguments.repository), IdentityFile(arguments.identity))
        if arguments.command == "restore":
            restore(repository, arguments.snapshot, arguments.target)
        elif arguments.command == "records":
            verifier = Verifier(repository)
            findings = verifier.run()
            print(*verifier.logs.lines(), sep="\n")
            print(*findings, sep="\n", file=sys.stderr)
        elif arguments.command == "snapshots":
            for key in repository.manifest_keys():
                print(repository.manifest(key).id)
        else:
            findings = Verifier(repository).run()
            print(*findings, sep="\n", end="\n" if findings else "")
            return 1 if findings else 0
    except FormatError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
