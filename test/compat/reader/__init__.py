"""A reader of Holdfast repositories, written from docs/format.md alone.

It shares no code with Holdfast. It is slow and small on purpose, and refuses whatever the document does not specify.

Modules, from the bottom up: encoding (integers, strings, bech32, JSON), age (the X25519 recipient of age v1),
documents (identity file, signed documents), manifest, seal (keys, chunks), packs (packs and pack lists), tree (entries,
maps, roots), logs (records of continuous sources), repository (a directory with all of these), restore, verify and
states; vectors checks the document's own.
"""
