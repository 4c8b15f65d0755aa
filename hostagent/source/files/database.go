package files

import (
	"bytes"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/hostagent/source/paged"
)

const (
	cacheTag = "CACHEDIR.TAG"
	// cacheSignature begins a valid tag: https://bford.info/cachedir/
	cacheSignature = "Signature: 8a477f597d28d172789f06886806bc55"
)

// hasHeader reports whether a regular file begins with header.
func (l *lister) hasHeader(dirFD int, name, header string) bool {
	fd, err := l.sys.openQuietly(dirFD, name, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	if m, err := fstat(fd); err != nil || m.mode&unix.S_IFMT != unix.S_IFREG {
		return false
	}
	buf := make([]byte, len(header))
	n, err := l.sys.readFull(fd, buf, 0)
	return err == nil && string(buf[:n]) == header
}

// landmarks are names that say what a directory is.
type landmarks struct{ version, pid, global, cacheTag bool }

func (m *landmarks) note(n *node) {
	m.version = m.version || n.find("PG_VERSION") >= 0
	m.pid = m.pid || n.find("postmaster.pid") >= 0
	m.global = m.global || n.find("global") >= 0
	m.cacheTag = m.cacheTag || n.find(cacheTag) >= 0
}

// postgres reports whether it may be the data directory of a server that runs.
func (m *landmarks) postgres() bool { return m.version && m.pid && m.global }

// survey looks among the names that are held, and reports what was found among all, for landmarks and for SQLite databases
// that may be written to while their files are read one after the other. It sees also the names that are left out:
// without its log a database is not consistent either.
func (l *lister) survey(n *node, fd int) *landmarks {
	seen := &n.seen
	seen.note(n)
	for _, r := range n.names {
		base, ok := databaseBase(n.name(r))
		// Of a very large directory not all names are held; then the file system is asked.
		if !ok || n.sqlite[base] || n.runs == nil && n.find(base) < 0 || l.sel.owned[joinPath(n.path, base)] {
			continue
		}
		if l.hasHeader(fd, base, paged.SQLiteHeader) {
			if n.sqlite == nil {
				n.sqlite = map[string]bool{}
			}
			n.sqlite[base] = true
		}
	}
	return seen
}

// databaseBase returns the name of the database to which a log of this name would belong.
func databaseBase(name []byte) (string, bool) {
	for _, suffix := range databaseSuffixes {
		if base, ok := bytes.CutSuffix(name, []byte(suffix)); ok && len(base) > 0 {
			return string(base), true
		}
	}
	return "", false
}

// databaseOf reports whether a file belongs to a database that may be writing, and of which kind the database is that has
// its main file here.
func (n *node) databaseOf(name string) (live bool, database string) {
	if n.sqlite[name] {
		return true, "SQLite database"
	}
	if len(n.sqlite) > 0 && strings.Contains(name, "-") {
		if base, ok := databaseBase([]byte(name)); ok && n.sqlite[base] {
			return true, ""
		}
	}
	return n.running, ""
}

// isTablespace reports whether a directory is named as PostgreSQL names its own in a tablespace: PG_15_202209061. Whether
// the server runs can't be seen there, so it is taken to.
func isTablespace(name string) bool {
	rest, ok := strings.CutPrefix(name, "PG_")
	major, catalog, ok2 := strings.Cut(rest, "_")
	digits := func(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
	return ok && ok2 && digits(strings.Replace(major, ".", "0", 1)) && len(catalog) == 9 && digits(catalog)
}
