"""python database.py FILE ROWS SEED: makes an SQLite database, or changes some pages of one that is there."""

import random
import sqlite3
import sys


def main():
    file, rows, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    source = random.Random(seed)
    with sqlite3.connect(file) as database:
        if database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
            database.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, value TEXT)")
            values = ((i, source.randbytes(100).hex()) for i in range(rows))
            database.executemany("INSERT INTO entry VALUES (?, ?)", values)
        for i in source.sample(range(rows), rows // 500):
            database.execute("UPDATE entry SET value = ? WHERE id = ?", (source.randbytes(100).hex(), i))
    database.close()


if __name__ == "__main__":
    main()
