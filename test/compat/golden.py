"""Makes databases for the golden repository.

python golden.py DIR: states of a small database, a file for each: main-00 …, and fork-19 … after main-18.
python golden.py FILE N: a database that is captured by its pages, as it is at N; of the one before, few pages change.
"""

import os
import shutil
import sqlite3
import sys


def step(path, statements):
    with sqlite3.connect(path, isolation_level=None) as database:
        for statement, *values in statements:
            database.execute(statement, values)
    database.close()


def first(path):
    rows = [("INSERT INTO note VALUES (?, ?)", i, f"note {i}: what is written down stays") for i in range(40)]
    step(
        path,
        [
            ("PRAGMA page_size = 4096",),
            ("PRAGMA journal_mode = DELETE",),
            ("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT)",),
            ("CREATE TABLE large (id INTEGER PRIMARY KEY, body BLOB)",),
            ("BEGIN",),
            *rows,
            ("COMMIT",),
        ],
    )


def commit(i, branch):
    """What the transaction that leads to state i does."""
    if branch == "main" and i == 23:
        return [("INSERT INTO large VALUES (1, zeroblob(?))", 5 << 20)]  # more than one record holds
    if branch == "main" and i == 24:
        return [("DELETE FROM large",), ("VACUUM",)]  # the database shrinks
    if i % 3 == 0:
        return [("UPDATE note SET body = ? WHERE id = ?", f"changed at {i} on {branch}", i)]
    return [("INSERT INTO note VALUES (?, ?)", 100 + i, f"added at {i} on {branch}")]


def pages(path, n):
    if not os.path.exists(path):
        rows = [("INSERT INTO entry VALUES (?, ?)", i, f"entry {i} of many. " * 160) for i in range(110)]
        step(path, [("CREATE TABLE entry (id INTEGER PRIMARY KEY, value TEXT)",), ("BEGIN",), *rows, ("COMMIT",)])
    step(path, [("UPDATE entry SET value = ? WHERE id = ?", f"entry at {n}. " * 200, 5 * int(n))])


def main():
    target = sys.argv[1]
    if len(sys.argv) > 2:
        pages(target, sys.argv[2])
        return
    path = os.path.join(target, "app.db")
    first(path)
    shutil.copyfile(path, os.path.join(target, "main-00"))
    for branch, numbers in {"main": range(1, 25), "fork": range(19, 22)}.items():
        if branch == "fork":
            shutil.copyfile(os.path.join(target, "main-18"), path)
        for i in numbers:
            step(path, commit(i, branch))
            shutil.copyfile(path, os.path.join(target, f"{branch}-{i:02d}"))
    os.remove(path)


if __name__ == "__main__":
    main()
