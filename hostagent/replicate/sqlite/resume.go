package sqlite

import (
	"errors"

	"github.com/btcdecoded/holdfast/hostagent/source/sqlite/tail"
	"github.com/btcdecoded/holdfast/shared/repository/log"
)

// resume goes on where the last lineage was, if the database's log still has that place. Otherwise a snapshot must begin a
// stream.
func (l *lineage) resume() (ok bool, err error) {
	k := l.f.known
	if k == nil {
		return false, nil
	}
	// What may be durable is read again all the same: which it is only the store knows, and an idle database should
	// not ask it.
	err = l.tail.Resume(k.Last.Position)
	if gap := (*tail.GapError)(nil); errors.As(err, &gap) {
		l.f.missed(gap)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	after, err := l.reached(k)
	if err != nil {
		return false, err
	}
	l.stream, l.from, l.after, l.epoch, l.mark, l.streaming, l.resumed = k.Stream, k.Last, after, k.Epoch, k, true, true
	return true, nil
}

// reached looks whether the database still has what may be in the repository already and is not proven by the last place. A
// power failure may have taken it: what was committed then does not go on from it, and must never be laid over it. Such a
// record is left aside: the stream goes on from the one before it.
func (l *lineage) reached(k *mark) (after *point, err error) {
	if k.Pending == nil {
		return nil, nil //nolint:nilnil // there is none
	}
	there, err := l.f.has(k.Pending.Position)
	if err != nil || !there {
		return nil, err
	}
	return k.Pending, nil
}

// has reports whether the database has come by a place, and nothing else.
func (f *Follower) has(p tail.Position) (bool, error) {
	t, err := tail.Open(f.o.Path)
	if err != nil {
		return false, err
	}
	defer func() { _ = t.Close() }()
	err = t.Resume(p)
	var gap *tail.GapError
	if errors.As(err, &gap) {
		return false, nil
	}
	return err == nil, err
}

// start begins with the log's present generation, for the snapshot that begins a stream.
func (l *lineage) start() error {
	stream, err := newStream()
	if err != nil {
		return err
	}
	l.stream, l.from.Place = stream, log.Place{Stream: stream}
	return l.tail.Start()
}
