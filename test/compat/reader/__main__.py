"""python -m reader REPOSITORY IDENTITY COMMAND, where COMMAND is one of

snapshots | verify | records | entries HOST/SOURCE@N | restore HOST/SOURCE@N DIR
state HOST/SOURCE@N STREAM EPOCH RECORD TARGET
"""

import argparse
import sys

from .documents import IdentityFile
from .encoding import FormatError
from .repository import Repository, Store
from .restore import Restorer
from .states import describe, open_snapshot, read_logs, restore_state
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
    entries = commands.add_parser("entries", help="print what is in a snapshot, one line of JSON for each entry")
    entries.add_argument("snapshot", help="HOST/SOURCE@N")
    state = commands.add_parser("state", help="restore the state right after a record of the log")
    state.add_argument("snapshot", help="HOST/SOURCE@N, from which the log leads there")
    state.add_argument("stream", help="id of the record's stream")
    state.add_argument("epoch", type=int, help="number of its epoch")
    state.add_argument("sequence", type=int, help="number of the record")
    state.add_argument("target", help="file of a database, or directory for WAL, that is made")
    return parser.parse_args()


def restore(repository, name, target):
    restorer = Restorer(open_snapshot(repository, name), target)
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
        elif arguments.command == "entries":
            print(*describe(open_snapshot(repository, arguments.snapshot)), sep="\n")
        elif arguments.command == "state":
            place = (arguments.stream, arguments.epoch, arguments.sequence)
            restore_state(read_logs(repository, arguments.snapshot), arguments.snapshot, *place, arguments.target)
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
