package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/btcdecoded/holdfast/shared/sqlite"
)

var errStop = errors.New("enough is known")

// journal is the rollback journal beside the database, if there is one.
type journal struct {
	file  *os.File // nil: there is none
	size  int64
	head  sqlite.Journal
	ok    bool // it begins as a journal does
	first byte
}

// openJournal looks for the journal.
func (c *capture) openJournal() (*journal, error) {
	f, err := os.Open(c.real + "-journal")
	if errors.Is(err, fs.ErrNotExist) {
		return &journal{}, nil
	}
	if err != nil {
		return nil, c.missing(err)
	}
	j := &journal{file: f}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(&Error{Path: c.Path, Err: err}, f.Close())
	}
	if j.size = info.Size(); j.size == 0 {
		return j, nil
	}
	first := make([]byte, 1)
	if _, err := f.ReadAt(first, 0); err != nil {
		j.size = 0    // it was just cut
		return j, nil //nolint:nilerr // said above
	}
	j.first = first[0]
	// The header and the name of a super-journal come before the first page.
	j.head, err = sqlite.ReadJournal(f, j.size, func(uint32, []byte) error { return errStop })
	j.ok = err == nil || errors.Is(err, errStop)
	return j, nil
}

func (j *journal) close() {
	if j.file != nil {
		_ = j.file.Close()
	}
}

// hot reports whether the file must not be believed without the journal. The lock must be held. dir is the database's: an
// application in a container knows the super-journal, which lies beside the main database, by another path.
func (j *journal) hot(fd int, dir string, databaseSize int64) (bool, error) {
	if j.size == 0 || !j.ok {
		return false, nil
	}
	facts := sqlite.JournalFacts{Size: j.size, FirstByte: j.first, DatabaseSize: databaseSize, Super: j.head.Super != ""}
	var err error
	if facts.Reserved, err = reserved(fd); err != nil {
		return false, err
	}
	if facts.Super {
		_, err := os.Lstat(j.head.Super)
		_, beside := os.Lstat(filepath.Join(dir, filepath.Base(j.head.Super)))
		facts.SuperExists = err == nil || beside == nil
	}
	return sqlite.Hot(facts), nil
}

// rolled is what a journal has put back.
type rolled struct {
	hot   bool
	size  uint64 // bytes that the database had before
	pages int
	head  sqlite.JournalHeader // its nonce is another for each transaction
}

// rollBack takes back, in what is captured, what a transaction has written that never ended: the pages that its journal has
// saved replace those of the file. Without the lock what it finds may be over a moment later.
func (c *capture) rollBack() (rolled, error) {
	j, err := c.openJournal()
	if err != nil {
		return rolled{}, err
	}
	defer j.close()
	if hot, err := j.hot(int(c.file.Fd()), filepath.Dir(c.real), c.stat.Size); err != nil || !hot {
		return rolled{}, err
	}
	if j.head.PageSize != c.page {
		return rolled{}, errAgain
	}
	done, err := sqlite.ReadJournal(j.file, j.size, c.over.put)
	if err != nil {
		return rolled{}, &Error{Path: c.Path, Err: fmt.Errorf("roll back by the journal: %w", err)}
	}
	return rolled{true, uint64(done.Pages) * uint64(c.page), done.Restored, done.JournalHeader}, nil
}

func (c *capture) noteRollBack(r rolled) {
	if r.hot {
		c.Note(fmt.Sprintf("%s was left in the midst of a transaction: %d pages of its journal are put back in the snapshot, as SQLite will do when it is opened next", c.Path, r.pages))
	}
}
