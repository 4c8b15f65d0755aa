"""Restores a snapshot into a new directory."""

import os
import stat

from .encoding import FormatError
from .tree import LINKED, UNREADABLE, within

DEVICES = {"p": stat.S_IFIFO, "s": stat.S_IFSOCK, "c": stat.S_IFCHR, "b": stat.S_IFBLK}


class Restorer:
    """Writes the entries of one snapshot below a directory that is made for it."""

    def __init__(self, snapshot, target):
        self._snapshot, self._target = snapshot, os.fsencode(target)
        self._roots, _ = snapshot.root()
        self._links = {}  # (device, inode) -> the first name that was written
        self._directories = []  # their modes and times are set last
        self.notes = []  # what could not be restored

    def run(self):
        os.makedirs(self._target, exist_ok=False)
        blocked = None
        for entry in self._snapshot.entries():
            if blocked and within(entry.path, blocked):
                raise FormatError(f"{entry.path!r} is below something that is no directory")
            blocked = None if entry.type == "d" else entry.path
            self._restore(entry, self._place(entry))
        for entry, place in reversed(self._directories):
            self._metadata(entry, place)

    def _place(self, entry):
        """A single directory becomes the target itself; else paths are kept whole below it."""
        top = next((root for root in self._roots if within(entry.path, root)), None)
        if top is None:
            raise FormatError(f"{entry.path!r} is in none of the roots")
        if len(self._roots) > 1:
            return self._target + entry.path.rstrip(b"/")
        if entry.path == top and entry.type != "d":
            return os.path.join(self._target, os.path.basename(top))
        return self._target + b"/" + entry.path[len(top.rstrip(b"/")) + 1 :] if entry.path != top else self._target

    def _restore(self, entry, place):
        os.makedirs(os.path.dirname(place), exist_ok=True)
        identity = (entry.device, entry.inode)
        if entry.flags & UNREADABLE:
            self.notes.append(f"{entry.path!r}: was not readable when it was backed up")
        if entry.flags & LINKED and identity in self._links:
            os.link(self._links[identity], place, follow_symlinks=False)
            return
        if entry.type == "d":
            os.makedirs(place, exist_ok=True)
            self._directories.append((entry, place))
            return
        if entry.type == "f":
            self._file(entry, place)
        elif entry.type == "l":
            os.symlink(entry.target, place)
        else:
            self._try(entry, os.mknod, place, DEVICES[entry.type] | 0o600, os.makedev(*entry.rdev))
        if os.path.lexists(place):
            self._metadata(entry, place)
            if entry.flags & LINKED:
                self._links[identity] = place

    def _file(self, entry, place):
        with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            for at, _, data in self._snapshot.content(entry):
                if data is not None:
                    file.seek(at)
                    file.write(data)
            file.truncate(entry.size)

    def _metadata(self, entry, place):
        self._try(entry, os.chown, place, entry.uid, entry.gid, follow_symlinks=False)
        # The owner of what is read-only can't set its xattrs, so access lists and then the mode come after the others.
        for name, value in sorted(entry.xattrs, key=lambda xattr: xattr[0].startswith(b"system.")):
            self._try(entry, os.setxattr, place, name, value, follow_symlinks=False)
        if entry.type != "l":
            os.chmod(place, entry.mode)
        os.utime(place, ns=(entry.mtime, entry.mtime), follow_symlinks=False)

    def _try(self, entry, call, place, *arguments, **options):
        """What an ordinary user may not do is noted and left out."""
        try:
            call(place, *arguments, **options)
        except PermissionError as error:
            self.notes.append(f"{entry.path!r}: {call.__name__}: {error.strerror}")
