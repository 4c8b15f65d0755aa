"""python goldencheck.py REPOSITORY IDENTITY EXPECTED DIR: reads all of the golden repository, and prints what is wrong.

Each snapshot is restored to DIR/HOST/SOURCE@N.
"""

import json
import os
import sys
from hashlib import sha256

from reader.documents import IdentityFile
from reader.repository import Repository, Store
from reader.restore import Restorer
from reader.states import describe, open_snapshot, restore_state
from reader.verify import Verifier


def content(path):
    with open(path, "rb") as file:
        return sha256(file.read()).hexdigest()


def check_snapshots(repository, expected, directory):
    names = [repository.manifest(key).id for key in repository.manifest_keys()]
    if sorted(names) != sorted(expected["snapshots"]):
        yield f"snapshots: {names}"
    for name in names:
        snapshot = open_snapshot(repository, name)
        want = {json.dumps(node, sort_keys=True) for node in expected["snapshots"][name]}
        got = {json.dumps(json.loads(line), sort_keys=True) for line in describe(snapshot)}
        yield from (f"{name} has {node}" for node in sorted(got - want))
        yield from (f"{name} lacks {node}" for node in sorted(want - got))
        target = os.path.join(directory, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        Restorer(snapshot, target).run()


def check_state(logs, state, target):
    restore_state(logs, state["snapshot"], state["stream"], state["epoch"], state["sequence"], target)
    if "wal" in state:
        return {name: content(os.path.join(target, name)) for name in os.listdir(target)} == state["wal"]
    return content(target) == state["database"]


def main():
    directory = sys.argv[4]
    repository = Repository(Store(sys.argv[1]), IdentityFile(sys.argv[2]))
    with open(sys.argv[3], encoding="utf-8") as file:
        expected = json.load(file)
    verifier = Verifier(repository)
    wrong = verifier.run()
    if list(verifier.logs.lines()) != expected["records"]:
        wrong.append("the records are others")
    wrong += check_snapshots(repository, expected, directory)
    for i, state in enumerate(expected["states"]):
        if not check_state(verifier.logs, state, os.path.join(directory, f"state-{i}")):
            wrong.append(f"another state: {state}")
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
