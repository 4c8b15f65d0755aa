package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/pgbin"
	"github.com/btcdecoded/holdfast/hostagent/scratch"
)

// Empty is a server without data, in a directory of its own: dumps are restored into it to look at them.
type Empty struct {
	*Server
	Major int // its version

	dir *scratch.Dir
}

const (
	emptyPattern = "server-*"
	dataName     = "data"
	homeName     = "home" // where its socket is
)

// startTime is how long an empty server may take until it accepts connections.
const startTime = 2 * time.Minute

// StartEmpty makes an empty cluster in a directory below the first of dirs that the account can enter, and starts its server:
// of the version atLeast, or of the lowest above it that this host has. bin may be empty. What an earlier process has left
// there is removed. Close it.
//
// Errors: *pgbin.MissingError.
func StartEmpty(ctx context.Context, dirs []string, bin string, atLeast int, account Account) (*Empty, error) {
	initdb, err := pgbin.Client(ctx, bin, "initdb", atLeast)
	if err != nil {
		return nil, err
	}
	postgres, err := pgbin.Server(ctx, filepath.Dir(initdb.Path), "postgres", initdb.Major)
	if err != nil {
		return nil, err
	}
	e, err := newEmpty(dirs, account)
	if err != nil {
		return nil, fmt.Errorf("make an empty server: %w", err)
	}
	e.Major = initdb.Major
	if err := e.start(ctx, initdb.Path, postgres.Path, account); err != nil {
		return nil, errors.Join(fmt.Errorf("make an empty server: %w", err), e.Close())
	}
	return e, nil
}

// newEmpty makes the directory.
func newEmpty(dirs []string, account Account) (*Empty, error) {
	var stopped string
	for _, dir := range dirs {
		if err := Way(dir, 0o711); err != nil { // the server, another user, goes through it
			return nil, err
		}
		var ok bool
		if stopped, ok = account.Reaches(dir); !ok {
			continue
		}
		d, err := scratch.New(dir, emptyPattern, 0o711, removeEmpty)
		if err != nil {
			return nil, err
		}
		return &Empty{dir: d}, nil
	}
	return nil, fmt.Errorf("user %s, as whom it would run, can not enter %s", account.Name(), stopped)
}

// removeEmpty removes what a process has left that is gone.
func removeEmpty(at string) error {
	return errors.Join(EndStray(filepath.Join(at, dataName)), Clear(filepath.Join(at, homeName)), os.RemoveAll(at))
}

// start makes the cluster and waits until its server accepts connections.
func (e *Empty) start(ctx context.Context, initdb, postgres string, account Account) (err error) {
	home := filepath.Join(e.dir.Path, homeName)
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	// The cluster is made by the account itself, in a directory that it may write to.
	if err := errors.Join(account.Give(home), account.Give(e.dir.Path)); err != nil {
		return err
	}
	if err := Init(ctx, initdb, e.data(), account); err != nil {
		return err
	}
	if e.Server, err = Start(Options{Program: postgres, Dir: e.data(), Home: home, Account: account, Settings: Alone()}); err != nil {
		return err
	}
	for began := time.Now(); !e.Accepts(); {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case !e.Running(), time.Since(began) > startTime:
			return fmt.Errorf("its server takes no connections: %s", e.Said())
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

func (e *Empty) data() string { return filepath.Join(e.dir.Path, dataName) }

// Close stops the server and removes all of it.
func (e *Empty) Close() error {
	var err error
	if e.Server != nil {
		err = e.Stop(false)
	} else {
		err = EndStray(e.data())
	}
	return errors.Join(err, Clear(filepath.Join(e.dir.Path, homeName)), e.dir.Remove())
}
