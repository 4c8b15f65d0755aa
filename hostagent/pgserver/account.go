package pgserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Account is the user whom a data directory belongs to, and as whom its server runs: PostgreSQL refuses to run as root,
// and to run on what is somebody else's. The zero Account is root.
type Account struct {
	UID, GID int
}

// Self is who runs this program.
func Self() Account { return Account{UID: os.Geteuid(), GID: os.Getegid()} }

// other reports whether it is not who runs this program, which is root then.
func (o Account) other() bool { return os.Geteuid() == 0 && o.UID != 0 }

// Give makes a file the account's.
func (o Account) Give(path string) error {
	if !o.other() {
		return nil
	}
	return os.Lchown(path, o.UID, o.GID)
}

// GiveAll makes a directory and all that is in it the account's.
func (o Account) GiveAll(dir string) error {
	if !o.other() {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if st, ok := stat(d); ok && int(st.Uid) == o.UID && int(st.Gid) == o.GID {
			return nil
		}
		return o.Give(path)
	})
}

func stat(d fs.DirEntry) (*syscall.Stat_t, bool) {
	info, err := d.Info()
	if err != nil {
		return nil, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return st, ok
}

// Lookup finds a user by name or number. A number that nobody has here is that of its own group too.
func Lookup(name string) (Account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			if n, nerr := strconv.ParseUint(name, 10, 31); nerr == nil {
				return Account{UID: int(n), GID: int(n)}, nil // of a container, which this host has no name for
			}
			return Account{}, fmt.Errorf("run PostgreSQL as %s: %w", name, err)
		}
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return Account{}, fmt.Errorf("run PostgreSQL as %s: its number is %q", name, u.Uid)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return Account{}, fmt.Errorf("run PostgreSQL as %s: the number of its group is %q", name, u.Gid)
	}
	return Account{UID: uid, GID: gid}, nil
}

// ErrRoot says that a server would run as root.
var ErrRoot = errors.New("PostgreSQL does not run as root")

// Choose decides whom the new data directory belongs to. Without root that is who runs this program. With root it is
// whom the caller names; else whom the data directory belongs to that is there already; else whom the snapshot says, if
// this host knows that number as a user of PostgreSQL, for on another host it may be anybody's; else the user postgres; else
// whom the snapshot says.
func Choose(named, existing string, captured Account) (Account, error) {
	if os.Geteuid() != 0 {
		return Self(), nil
	}
	o, err := ownerOf(named, existing, captured)
	if err == nil && o.UID == 0 {
		err = ErrRoot
	}
	return o, err
}

func ownerOf(named, existing string, captured Account) (Account, error) {
	if named != "" {
		return Lookup(named)
	}
	if st, err := os.Stat(existing); existing != "" && err == nil {
		if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Uid != 0 {
			return Account{UID: int(sys.Uid), GID: int(sys.Gid)}, nil
		}
	}
	u, err := user.LookupId(strconv.Itoa(captured.UID))
	known := err == nil && captured.UID != 0
	if known && (strings.HasPrefix(u.Username, "postgres") || strings.HasPrefix(u.Username, "pgsql")) {
		return captured, nil
	}
	own, err := Lookup("postgres")
	if err != nil && known {
		return captured, nil
	}
	return own, err
}

// Name is what the account is called on this host.
func (o Account) Name() string {
	if u, err := user.LookupId(strconv.Itoa(o.UID)); err == nil {
		return u.Username
	}
	return strconv.Itoa(o.UID)
}

// Reaches reports whether the account can enter a directory: whether it may search each one on the way. The first that it
// may not is returned.
func (o Account) Reaches(dir string) (stopped string, ok bool) {
	if !o.other() {
		return "", true
	}
	for at := dir; ; at = filepath.Dir(at) {
		st, err := os.Stat(at)
		if err != nil {
			return at, os.IsNotExist(err) // it is made, or the error comes where it is used
		}
		sys, known := st.Sys().(*syscall.Stat_t)
		mode := st.Mode().Perm()
		switch {
		case !known, int(sys.Uid) == o.UID && mode&0o100 != 0, int(sys.Uid) != o.UID && int(sys.Gid) == o.GID && mode&0o010 != 0:
		case int(sys.Uid) != o.UID && int(sys.Gid) != o.GID && mode&0o001 != 0:
		default:
			return at, false
		}
		if at == filepath.Dir(at) {
			return "", true
		}
	}
}

// Way makes a directory and those above it that are missing, with a mode that is theirs whatever the umask of this program is:
// on a hardened host that keeps others out of all that root makes.
func Way(dir string, mode fs.FileMode) error {
	var made []string
	for at := filepath.Clean(dir); at != filepath.Dir(at); at = filepath.Dir(at) {
		if _, err := os.Stat(at); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		made = append(made, at)
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return err
	}
	for _, at := range made {
		if err := os.Chmod(at, mode); err != nil {
			return err
		}
	}
	return nil
}

// Passable makes a directory, and lets other users go through it and those between it and top, which is above it or the
// same: they may not list them. Nothing is done where this program is not root, for servers run as who runs it then, nor
// where dir does not lie below top.
func Passable(dir, top string) error {
	if err := Way(dir, 0o711); err != nil { // to be gone through, not listed
		return err
	}
	rel, err := filepath.Rel(top, dir)
	if os.Geteuid() != 0 || err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return nil //nolint:nilerr // another place, whose modes are not ours
	}
	for at := dir; ; at = filepath.Dir(at) {
		st, err := os.Stat(at)
		if err != nil {
			return err
		}
		if err := os.Chmod(at, st.Mode().Perm()|0o111); err != nil {
			return err
		}
		if at == top || at == filepath.Dir(at) {
			return nil
		}
	}
}
