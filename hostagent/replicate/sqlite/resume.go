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
	after, gap, err := l.reached(k)
	if err != nil {
		return false, err
	}
	if gap != nil {
		l.f.missed(gap)
		return false, nil
	}
	l.stream, l.from, l.after, l.epoch, l.mark, l.streaming = k.Stream, k.Last, after, k.Epoch, k, true
	if k.Taken != nil {
		l.taken = &taken{position: *k.Taken} // the first record has it
	}
	return true, nil
}

// reached looks whether the database still has what is in the repository already and not proven by the last place. A power
// failure may have taken it: what was committed then does not go on from it, and must never be laid over it. A record
// that may be durable is left aside: the stream goes on from the one before it. A snapshot can't be: that is a gap.
func (l *lineage) reached(k *mark) (after *point, gap *tail.GapError, err error) {
	if after = k.Pending; after != nil {
		there, err := l.f.has(after.Position)
		if err != nil {
			return nil, nil, err
		}
		if !there {
			after = nil
		}
	}
	if k.Taken != nil {
		there, err := l.f.has(*k.Taken)
		if err != nil {
			return nil, nil, err
		}
		if !there {
			return nil, &tail.GapError{Cause: tail.Rewound, Why: "the database's log does not have any more what is in the newest snapshot: a power failure, or a copy put back"}, nil
		}
	}
	return after, nil, nil
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
