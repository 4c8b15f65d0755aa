package replicate

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Options are what followers are told, whatever they follow.
type Options struct {
	Repository *repository.Repository
	Source     snapshot.Source
	Interval   time.Duration // in which a commit is to be durable
	Dir        string        // of the source's state; made if missing
	Tool       string        // "holdfast 1.2.3"
	Tell       func(Event)   // called by several goroutines; nil: nobody is told

	Join  time.Duration // how often small pieces of the log are joined; 0: a default; negative: never
	Look  time.Duration // how often to look whether another writes the stream; 0: a default; negative: only with each start
	Grace time.Duration // for what is not durable yet at the end; 0: a default
	Renew bool          // begin a new stream, whatever is known of the last
}

// Default gives a duration that is not set its default.
func Default(d *time.Duration, to time.Duration) {
	if *d == 0 {
		*d = to
	}
}

// Keeper keeps what a follower must not lose, or do twice: the lock of its source's directory, its mark, its status, and the
// right to make a snapshot of the source. Followers are built on one.
type Keeper struct {
	*Reporter
	Marks *Marks // while [Keeper.Hold] runs

	// taking is held by whoever makes a snapshot of the source in this process.
	taking chan struct{}
}

// NewKeeper returns the keeper of a follower that begins, and completes its options. Path is what the status says is followed.
func NewKeeper(o *Options, path string) *Keeper {
	Default(&o.Join, DefaultJoin)
	Default(&o.Look, DefaultLook)
	Default(&o.Grace, DefaultGrace)
	o.Interval = min(max(o.Interval, MinInterval), MaxInterval)
	return &Keeper{Reporter: NewReporter(o.Dir, o.Source, path, o.Interval, o.Tell), taking: make(chan struct{}, 1)}
}

// Hold holds the source's directory while do runs, which is told whether the newest mark, of this kind of source, was found
// and is in the value that mark points to. Errors: [ErrFollowed], those of the directory and of do.
func (k *Keeper) Hold(kind string, mark any, do func(found bool) error) (err error) {
	held, err := Lock(k.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	var found bool
	if k.Marks, found, err = OpenMarks(k.dir, kind, mark); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Marks.Close()) }()
	return do(found)
}

// Follow keeps the status while follow runs, and says in it how that ended. Errors: those of follow.
func (k *Keeper) Follow(follow func() error) error {
	defer k.Keep()()
	err := follow()
	if errors.Is(err, ErrSuperseded) {
		k.Superseded(err)
		return err
	}
	k.State(Stopped, "", "")
	return err
}

// Take waits until nobody else makes a snapshot of the source in this process, and keeps others from making one until done
// is called, once or more often. Errors: ctx's.
func (k *Keeper) Take(ctx context.Context) (done func(), err error) {
	select {
	case k.taking <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return sync.OnceFunc(func() { <-k.taking }), nil
}

// Again makes one attempt after the other until ctx ends or one fails, each after the wait that the one before it has
// returned.
func Again(ctx context.Context, attempt func(context.Context) (wait time.Duration, err error)) error {
	for ctx.Err() == nil {
		wait, err := attempt(ctx)
		if err != nil {
			return err
		}
		Sleep(ctx, wait)
	}
	return nil
}

// Persist does what needs the store for as long as that takes, and tells what it says meanwhile: until it succeeds, ctx ends,
// or do says that trying again is in vain. Errors: do's, or ctx's.
func (r *Reporter) Persist(ctx context.Context, do func() (again bool, err error)) error {
	for wait := FirstRetry; ; wait = min(2*wait, MostRetry) {
		again, err := do()
		switch {
		case err == nil || !again:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
		r.Trouble(err)
		Sleep(ctx, wait)
	}
}

// Upkeep looks after a log while records are added to it: it joins small pieces, and looks whether somebody else writes the
// stream.
type Upkeep struct {
	join, look         time.Duration
	tell               func(Event)
	joined, looked     time.Time
	joinedAt, lookedAt uint64 // records by then
}

// NewUpkeep begins.
func (k *Keeper) NewUpkeep(o *Options) *Upkeep {
	now := time.Now()
	return &Upkeep{join: o.Join, look: o.Look, tell: k.Tell, joined: now, looked: now}
}

// Do does what is due now that so many records were added. Superseded looks whether somebody else writes the stream. Errors:
// [ErrSuperseded].
func (u *Upkeep) Do(ctx context.Context, w *log.Writer, records uint64, superseded func(context.Context) error) error {
	now := time.Now()
	if u.look > 0 && now.Sub(u.looked) >= u.look && records > u.lookedAt {
		u.looked, u.lookedAt = now, records
		if err := superseded(ctx); errors.Is(err, ErrSuperseded) {
			return err
		}
	}
	if u.join > 0 && now.Sub(u.joined) >= u.join && records > u.joinedAt {
		u.joined, u.joinedAt = now, records
		if _, err := w.Join(ctx, 0); err != nil && ctx.Err() == nil && !errors.Is(err, log.ErrClosed) {
			// Pieces that are not joined cost a restore more requests, nothing else.
			u.tell(Event{Kind: Trouble, Why: "join pieces of the log: " + err.Error()})
		}
	}
	return nil
}
