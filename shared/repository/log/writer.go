package log

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/repository/record"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Options says how an epoch begins.
type Options struct {
	Kind   string // of the records; empty: KindSQLite
	Stream string // 32 hex digits; empty: a new one
	// After is the highest epoch of the stream that the caller knows of, or has ever tried to open; the new one is the
	// next. It must be saved before Create is called, so that after a crash no number is tried twice.
	After uint64
	// Continues is the place after which the first record comes; nil: it is the stream's first.
	Continues *Place
	Opened    time.Time // no record of the epoch will be older; zero: now
	Tool      string    // "holdfast 1.2.3"
	Temp      string    // directory for the spool of Join, which is a file without a name; empty: the system's
	NoJoin    bool      // keep no spool: Join does nothing
	// Postgres is the timeline that the stream holds, of kind KindPostgres; its id begins with Postgres.StreamPrefix, and
	// where Stream is empty a new one is made.
	Postgres *record.PostgresLog
	Next     postgres.LSN // where its first WAL must start; 0: not known
	Now      func() time.Time
	// Trouble is told each time that the store did not take something and it is tried again; nil: nobody.
	Trouble func(error)
	// Pauses between two attempts: the first, and up to how long they grow. Zero: 100 ms and 30 s.
	Pause, MaxPause time.Duration
}

// Writer writes one epoch. It is safe for concurrent use, but records are in the order in which Prepare was called, and
// Put must be called in that order.
type Writer struct {
	repo *repository.Repository
	src  snapshot.Source
	opts Options
	key  seal.DataKey
	keys *seal.Keys
	head record.LogHead

	mu     sync.Mutex
	tail   Place    // of the last record that was prepared; guarded by mu, as all below
	put    Place    // of the last that is durable
	point  Place    // of the last that is durable and ends a transaction
	ahead  int      // prepared and not yet put
	unsure bool     // one of them is sealed only when it is put: nothing can be sealed before
	wal    Position // where WAL goes on
	err    error    // why nothing can be put any more
	spool  *spool

	order   sync.Mutex // held while pieces are put
	joining sync.Mutex // held by Join
}

// Create opens an epoch: it makes a data key, seals it for the repository's recipients and puts the head. The order, and
// what a crash leaves:
//
//  1. The epochs that are there are listed. A higher one than the caller knows means that somebody else writes.
//  2. The head is put if absent: only one writer gets the number. A crash leaves an epoch without records, which means
//     nothing; the next writer opens another.
//
// Nothing is read, so that the right to add and to list suffices. Errors: ErrSuperseded, repository.ErrNoSigner,
// repository.ErrForeignSigner, those of the store.
func Create(ctx context.Context, repo *repository.Repository, src snapshot.Source, o Options) (*Writer, error) {
	w := &Writer{repo: repo, src: src, opts: o}
	if err := w.prepareHead(); err != nil {
		return nil, fmt.Errorf("open a log of %s: %w", src, err)
	}
	stream, err := snapshot.ParseChainID(w.head.Stream)
	if err != nil {
		return nil, err
	}
	if err := w.Superseded(ctx); err != nil {
		return nil, err
	}
	key, about := seal.NewDataKey(), seal.Context{Repository: repo.ID(), Source: src, Chain: stream}
	wrapped, warnings, err := repo.WrapKey(ctx, key, about, nil)
	if err != nil {
		return nil, fmt.Errorf("open a log of %s: %w", src, err)
	}
	for _, warning := range warnings {
		w.trouble(warning)
	}
	w.key, w.keys = key, seal.NewKeys(key, about)
	w.head.Keys = []snapshot.Key{{Key: key.ID(repo.ID()).String(), Wrapped: wrapped}}
	if err := w.head.Check(src, w.head.Stream, w.head.Epoch); err != nil {
		return nil, fmt.Errorf("open a log of %s: %w", src, err)
	}
	object := layout.LogKey(src, layout.LogObject{Stream: w.head.Stream, Epoch: w.head.Epoch})
	// The same bytes each time: signatures are deterministic.
	if err := w.persist(ctx, func() error { return repo.PutDocument(ctx, object, w.head) }); err != nil {
		return nil, fmt.Errorf("open a log of %s: %w", src, err)
	}
	return w, nil
}

// prepareHead fills in what the caller left open.
func (w *Writer) prepareHead() error {
	o := &w.opts
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Kind == "" {
		o.Kind = KindSQLite
	}
	if o.Pause <= 0 {
		o.Pause = 100 * time.Millisecond
	}
	if o.MaxPause <= 0 {
		o.MaxPause = 30 * time.Second
	}
	if o.Opened.IsZero() {
		o.Opened = o.Now()
	}
	if err := checkTime(o.Opened); err != nil {
		return err
	}
	if o.Stream == "" {
		var id [16]byte
		_, _ = rand.Read(id[:])
		o.Stream = hex.EncodeToString(id[:])
		if o.Postgres != nil {
			o.Stream = o.Postgres.StreamPrefix() + o.Stream[:8]
		}
	}
	signer, ok := w.repo.Identity().Signer()
	if !ok {
		return repository.ErrNoSigner
	}
	if !w.repo.MaySign(layout.LogPrefix(w.src) + "x") {
		return &rightsError{host: w.src.Host, signer: signer.Public().String()}
	}
	w.head = record.LogHead{
		Format: repository.Format, Repository: w.repo.ID().String(), Host: w.src.Host, Source: w.src.Name, Kind: o.Kind,
		Stream: o.Stream, Epoch: o.After + 1, Opened: o.Opened.UTC().Round(0), Tool: o.Tool,
		Postgres: o.Postgres,
	}
	w.put = Place{Stream: o.Stream}
	if o.Continues != nil {
		w.put = *o.Continues
		continues := w.put
		w.head.Continues = &continues
	}
	w.tail, w.point = w.put, w.put
	if o.Kind == KindPostgres && o.Postgres != nil {
		w.wal.Enter(o.Stream, o.Postgres, o.Continues == nil || o.Continues.Stream != o.Stream)
	}
	return nil
}

// checkTime refuses times that records can't state: nanoseconds since 1970 have 64 bits. Times before [Options].Opened are
// not stated.
func checkTime(t time.Time) error {
	if t.Year() >= 2262 {
		return fmt.Errorf("the clock shows the year %d: records of a log can state times up to 2261", t.Year())
	}
	return nil
}

// checkWAL checks that a record may come next in a log of kind [KindPostgres], and that it is none in one of another kind.
// It is called with w.mu held.
func (w *Writer) checkWAL(r *Record) error {
	if w.head.Kind != KindPostgres {
		if r.WAL != nil || r.History != nil {
			return fmt.Errorf("a record of WAL in a log of kind %s", w.head.Kind)
		}
		return nil
	}
	if (r.WAL == nil) == (r.History == nil) || r.Each != nil {
		return errors.New("a record that is neither WAL nor a history")
	}
	if h := r.History; h != nil && (h.Timeline < 2 || len(h.Content) == 0 || len(h.Content) > maxHistory) {
		return fmt.Errorf("a history of timeline %d of %d bytes", h.Timeline, len(h.Content))
	}
	if r.WAL != nil {
		if err := r.WAL.check(w.head.Postgres.SegmentSize); err != nil {
			return err
		}
		if next := w.opts.Next; next != 0 && r.WAL.Start != next {
			return &PositionError{Timeline: w.head.Postgres.Timeline, Want: next, Got: r.WAL.Start}
		}
		w.opts.Next = 0
	}
	return w.wal.Take(r, w.head.Postgres.SegmentSize)
}

// Stream is the stream's id, Epoch the number of the epoch.
func (w *Writer) Stream() string { return w.head.Stream }

// Epoch is the number of the epoch that the writer has opened.
func (w *Writer) Epoch() uint64 { return w.head.Epoch }

// Place is that of the last record that is durable and ends a transaction; before the first it is where the epoch goes on.
// Another epoch can go on from there, whatever has happened to this one.
func (w *Writer) Place() Place {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.point
}

// Superseded looks whether a higher epoch of the stream is there: one listing. Errors: ErrSuperseded, those of the store.
func (w *Writer) Superseded(ctx context.Context) error {
	prefix := layout.StreamPrefix(w.src, w.head.Stream)
	highest := uint64(0)
	err := objstore.Prefixes(ctx, w.repo.Store(), prefix, func(name string) error {
		if n, err := strconv.ParseUint(name, 10, 64); err == nil {
			highest = max(highest, n)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list %s: %w", prefix, err)
	}
	if highest > w.head.Epoch || w.keys == nil && highest >= w.head.Epoch {
		return fmt.Errorf("%w: epoch %d of stream %s is there, this one would be, or is, %d", ErrSuperseded, highest, w.head.Stream, w.head.Epoch)
	}
	return nil
}

// rightsError says that the signer may not open logs. Hosts that were registered before there were logs may not.
type rightsError struct{ host, signer string }

func (e *rightsError) Error() string {
	return "sign the head of a log: " + repository.ErrForeignSigner.Error()
}

func (e *rightsError) Unwrap() error { return repository.ErrForeignSigner }

// Hint says how the host gets the right.
func (e *rightsError) Hint() string {
	return fmt.Sprintf("let somebody who may change access register the host once more: holdfast host add %s --signer %s; then start this again", e.host, e.signer)
}

// Prepared is a record that is numbered and, unless it is large, sealed.
type Prepared struct {
	record Record
	place  Place
	piece  []byte // nil: it is sealed when it is put
	frame  []byte // the record with its length
	size   int    // bytes of records
	more   bool   // others of its transaction follow
}

// Place is that which the record will have; of a large one it is known only when it was put, and its Sequence is 0.
func (p *Prepared) Place() Place { return p.place }

// Append prepares and puts a record, and returns its place when it is durable. A large one becomes several, of which the
// place is that of the last. A time before Options.Opened counts as that. Errors: those of [Writer.Put].
func (w *Writer) Append(ctx context.Context, r Record) (Place, error) {
	p, err := w.Prepare(r)
	if err != nil {
		return Place{}, err
	}
	return w.Put(ctx, p)
}

// errLarge ends the sealing of a record that does not fit in one piece.
var errLarge = errors.New("large record")

// Prepare numbers a record and seals it, so that the next can be made ready while one is on its way. r.Each is called
// now; of a large record, and of one behind it that is not put yet, when it is put.
func (w *Writer) Prepare(r Record) (*Prepared, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, w.err
	}
	if err := errors.Join(w.checkWAL(&r), checkTime(r.Time)); err != nil {
		return nil, fmt.Errorf("prepare record %d of the log of %s: %w", w.tail.Sequence+1, w.src, err)
	}
	p := &Prepared{record: r}
	if !w.unsure {
		err := r.bodies(func(body []byte, last bool) error {
			if !last {
				return errLarge
			}
			w.seal(p, body, false)
			return nil
		})
		switch {
		case errors.Is(err, errLarge):
			w.unsure = true
		case err != nil:
			return nil, fmt.Errorf("prepare record %d of the log of %s: %w", w.tail.Sequence+1, w.src, err)
		}
	}
	w.ahead++
	return p, nil
}

// seal makes the next piece from a body. It is called with w.mu held.
func (w *Writer) seal(p *Prepared, body []byte, more bool) {
	at := p.record.Time
	if at.Before(w.head.Opened) {
		at = w.head.Opened // the clock was set back: rather too late than out of the epoch
	}
	e := entry{sequence: w.tail.Sequence + 1, time: at.UnixNano(), more: more, body: body}
	if w.tail.Sequence > 0 {
		e.previous, _ = snapshot.ParseHash(w.tail.Record)
	}
	frame, hash := e.frame(nil)
	w.tail = Place{Stream: w.head.Stream, Epoch: w.head.Epoch, Sequence: e.sequence, Record: hash.String()}
	p.place, p.frame, p.size, p.more = w.tail, frame, len(frame), more
	p.piece = sealPiece(w.keys, w.repo.Codec(), frame)
}

// Put stores a prepared record and returns its place when it is durable: one put for each piece, under a name that can
// be taken only once. It tries again, always the same bytes, until the store takes it or ctx ends. A crash, or the end of
// ctx, leaves the last piece stored or not, which [Resume] tells; of a large record it may leave a beginning that no
// reader applies.
//
// Errors: ErrSuperseded, ErrClosed, ctx's. After any error the writer is over.
func (w *Writer) Put(ctx context.Context, p *Prepared) (Place, error) {
	w.order.Lock()
	defer w.order.Unlock()
	if p.piece != nil {
		if err := w.store(ctx, p); err != nil {
			return Place{}, w.fail(err)
		}
		return w.done(), nil
	}
	// Nothing behind this one is sealed: the chain goes on from what is durable.
	err := p.record.bodies(func(body []byte, last bool) error {
		part := &Prepared{record: p.record}
		w.mu.Lock()
		w.seal(part, body, !last)
		w.mu.Unlock()
		return w.store(ctx, part)
	})
	if err != nil {
		return Place{}, w.fail(err)
	}
	p.record.Each = nil
	return w.done(), nil
}

// done counts a record that is durable.
func (w *Writer) done() Place {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ahead--; w.ahead == 0 {
		w.unsure = false
	}
	return w.point
}

// store puts one piece.
func (w *Writer) store(ctx context.Context, p *Prepared) error {
	w.mu.Lock()
	err, due := w.err, w.put.Sequence+1
	w.mu.Unlock()
	if err != nil {
		return err
	}
	if p.place.Sequence != due {
		return fmt.Errorf("record %d of the log was put where record %d is due", p.place.Sequence, due)
	}
	key := layout.LogKey(w.src, layout.LogObject{Stream: p.place.Stream, Epoch: p.place.Epoch, First: p.place.Sequence, Last: p.place.Sequence})
	content := objstore.Bytes(p.piece)
	if err := w.persist(ctx, func() error { return w.repo.Store().Put(ctx, key, content) }); err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	w.mu.Lock()
	w.put = p.place
	if !p.more {
		w.point = p.place
	}
	err = w.keep(p)
	w.mu.Unlock()
	if err != nil {
		w.trouble(err)
	}
	return nil
}

func (w *Writer) fail(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return err
}

// persist calls put until the store has taken it. What can pass by itself, or be put right by a person while the writer
// waits (a full disk, rights), is tried again.
func (w *Writer) persist(ctx context.Context, put func() error) error {
	pause := w.opts.Pause
	for {
		err := put()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, objstore.ErrExist):
			return fmt.Errorf("%w: %w", ErrSuperseded, err)
		case ctx.Err() != nil:
			return errors.Join(ctx.Err(), err)
		case !objstore.IsTransient(err) && !errors.Is(err, objstore.ErrFull) && !errors.Is(err, objstore.ErrDenied) && !errors.Is(err, objstore.ErrChecksum):
			return err
		}
		w.trouble(err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(ctx.Err(), err)
		}
		pause = min(2*pause, w.opts.MaxPause)
	}
}

func (w *Writer) trouble(err error) {
	if w.opts.Trouble != nil {
		w.opts.Trouble(err)
	}
}

// Close gives the writer's spool up. What was put stays. The epoch ends with its last record: nothing says so.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = ErrClosed
	}
	s := w.spool
	w.spool = nil
	if s == nil {
		return nil
	}
	return s.close()
}
