package replicate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// askFile holds a time: what was committed by then is to be made durable at once.
	askFile = "ask"
	// askedEvery is how often who is asked, and who asks, looks whether it is done.
	askedEvery = 20 * time.Millisecond
	// askedFor is for how long a question counts.
	askedFor = time.Minute
)

// Ask asks the process that follows the source of a state directory to look once more and to ship at once, and waits until
// all is durable that was committed by now. done is false where nobody follows, where the follower says why it can't, or
// when ctx ends; the status, nil if there never was one, then tells up to when all is durable. The error is one of the
// state directory.
func Ask(ctx context.Context, dir string) (s *Status, done bool, err error) {
	now := time.Now()
	for asked := false; ; {
		s, alive, err := Read(dir)
		if err != nil || s == nil || !alive {
			return s, false, err
		}
		switch {
		case s.Until().After(now):
			return s, true, nil
		case ctx.Err() != nil, asked && s.Written.After(now) && s.State != Following:
			return s, false, nil //nolint:nilerr // the end of ctx is no error, as said above
		}
		if !asked {
			if err := ask(dir, now); err != nil {
				return s, false, err
			}
			asked = true
		}
		Sleep(ctx, askedEvery)
	}
}

// ask leaves the question. A later one stands for an earlier one as well.
func ask(dir string, by time.Time) error {
	f, err := os.CreateTemp(dir, askFile+"-*")
	if err != nil {
		return fmt.Errorf("ask the follower: %w", err)
	}
	_, err = f.WriteString(by.UTC().Format(time.RFC3339Nano))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, askFile))
	}
	if err != nil {
		return fmt.Errorf("ask the follower: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// asked is by when what was committed is to be durable; zero: nobody asks. A question that is old is removed.
func (r *Reporter) asked(now time.Time) time.Time {
	path := filepath.Join(r.dir, askFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}
	}
	by, perr := time.Parse(time.RFC3339Nano, strings.TrimSpace(string(b)))
	if err != nil || perr != nil || now.Sub(by).Abs() > askedFor {
		_ = os.Remove(path) // it means nothing
		return time.Time{}
	}
	return by
}

// answered removes a question, unless there is a newer one by now.
func (r *Reporter) answered(by time.Time) {
	if r.asked(by).Equal(by) {
		_ = os.Remove(filepath.Join(r.dir, askFile)) // it is looked at again, and is old then
	}
}

// Hastens says what has the source looked at now and shipped at once; nil: nothing does.
func (r *Reporter) Hastens(hasten func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hasten = hasten
}

// rush has shipped at once what was committed by a time.
func (r *Reporter) rush() {
	r.mu.Lock()
	hasten := r.hasten
	r.mu.Unlock()
	if hasten != nil {
		hasten()
	}
}
