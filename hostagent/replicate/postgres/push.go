package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/postgres"
	"github.com/btcdecoded/holdfast/shared/repository/log"
)

// Pushed is what became of a file that [Push] was given.
type Pushed struct {
	Name   string       // of the file
	Stored int          // bytes of WAL that were added to the log; 0: they were there, or the file holds none that is needed
	Until  postgres.LSN // all WAL before it is durable
	Began  bool         // a new lineage begins, which needs a base backup
	Gap    string       // for this reason; empty: the log goes on, or nothing was known of one
	Slot   string       // that was made when WAL was streamed, and keeps WAL on the server for nobody; empty: none that is known
	Based  bool         // there is a base backup that the lineage begins with, as far as is known here
}

// Push stores a file of pg_wal, as archive_command gives it, and returns when it is durable: for who can't let the agent
// stream. The source must not be followed meanwhile. A segment that is stored already, or in part, because the agent
// streamed until now or a process was killed, is looked at and completed. Of Options neither Config nor Base nor Slot is
// needed.
//
// Only WAL segments are stored; history files come into the log with the first segment of their timeline, and are read beside
// it. What else archive_command gives holds nothing that is not elsewhere.
//
// Errors: replicate.ErrFollowed, replicate.ErrSuperseded, ErrHeld, those of the file, of the state directory and of ctx. After
// each of them the server must keep the file and give it again.
func Push(ctx context.Context, o Options, path string) (p Pushed, err error) {
	s, err := openSegment(path)
	if err != nil || s == nil {
		return Pushed{Name: filepath.Base(path)}, err
	}
	defer func() { _ = s.file.Close() }()
	o.Join = -1 // a process for each segment has nothing to join
	f := New(o)
	known := new(mark)
	err = f.Hold(policy.KindPostgres, known, func(found bool) error {
		if replicate.Held(o.Dir) {
			return fmt.Errorf("store %s: %w", filepath.Base(path), ErrHeld)
		}
		if found && !o.Renew {
			f.known = known
		}
		p, err = f.pushHeld(ctx, s)
		return err
	})
	return p, err
}

// pushHeld stores a segment and keeps the status meanwhile. The source's directory is held.
func (f *Follower) pushHeld(ctx context.Context, s *segmentFile) (Pushed, error) {
	if err := f.settled(ctx); err != nil {
		return Pushed{}, err
	}
	defer f.Keep()()
	f.Set(func(st *replicate.Status) { st.Archived = true })
	p, err := f.push(ctx, s)
	if err != nil {
		f.State(replicate.Failing, err.Error(), replicate.HintOf(err))
		return p, err
	}
	f.note(aboutServer, nil)
	f.Set(func(st *replicate.Status) {
		if s.modified.After(st.Looked) {
			st.Looked = s.modified.UTC()
		}
		st.Cluster = &replicate.Cluster{System: fmt.Sprint(s.origin.System), Timeline: f.known.Timeline, Durable: f.known.Last.LSN.String(), Sent: f.known.Last.LSN.String()}
	})
	f.Follows(func(*replicate.Status) {}) // all that is known of is durable
	return p, nil
}

// ErrHeld says that a restore in place is at work, which may take the server back that gives WAL now.
var ErrHeld = errors.New("a restore in place is at work: nothing is stored of its server before it has ended")

// settled is settle for who goes on with an epoch: where the put of a record may be on its way still, its number is taken.
func (f *Follower) settled(ctx context.Context) error {
	if f.known == nil || f.known.Pending == nil {
		return nil
	}
	tried := f.known.Pending.Place
	if err := f.settle(ctx); err != nil {
		return err
	}
	if f.known.Last.Place != tried {
		m := f.known.clone()
		m.Epoch++
		f.known = m
	}
	return nil
}

// segmentFile is a WAL segment that is to be stored.
type segmentFile struct {
	file     *os.File
	path     string
	name     postgres.Name
	origin   postgres.Origin
	modified time.Time
}

func (s *segmentFile) end() postgres.LSN { return s.name.Start + postgres.LSN(s.origin.SegmentSize) }

// openSegment opens a segment; nil for a file that holds nothing to store.
func openSegment(path string) (*segmentFile, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open WAL: %w", err)
	}
	s := &segmentFile{file: file, path: path}
	keep, err := s.read()
	if err != nil || !keep {
		return nil, errors.Join(err, file.Close())
	}
	return s, nil
}

// read reads what a segment says of itself, and reports whether it is one.
func (s *segmentFile) read() (bool, error) {
	info, err := s.file.Stat()
	if err != nil {
		return false, fmt.Errorf("read WAL: %w", err)
	}
	base := filepath.Base(s.path)
	size := uint32(postgres.DefaultSegmentSize)
	if len(base) == len("000000010000000000000001") {
		if info.Size() > postgres.MaxSegmentSize || postgres.CheckSegmentSize(uint32(info.Size())) != nil { //nolint:gosec // not larger than that
			return false, fmt.Errorf("read %s: it has %d bytes, which no WAL segment has: it is not complete", base, info.Size())
		}
		size = uint32(info.Size()) //nolint:gosec // as above
	}
	if s.name, err = postgres.ParseName(base, size); err != nil {
		return false, fmt.Errorf("read %s: it is no file of pg_wal: %w", base, err)
	}
	if s.name.Kind != postgres.Segment {
		return false, nil
	}
	var header [40]byte
	if _, err := s.file.ReadAt(header[:], 0); err != nil {
		return false, fmt.Errorf("read %s: %w", base, err)
	}
	s.modified = info.ModTime()
	s.origin = postgres.Origin{
		System: binary.LittleEndian.Uint64(header[24:]), Timeline: s.name.Timeline, SegmentSize: size, PageSize: binary.LittleEndian.Uint32(header[36:]),
	}
	if err := s.origin.Check(s.name.Start, header[:]); err != nil {
		return false, fmt.Errorf("read %s: %w", base, err)
	}
	return true, nil
}

// push stores a segment after what is known.
func (f *Follower) push(ctx context.Context, s *segmentFile) (Pushed, error) {
	p := Pushed{Name: filepath.Base(s.path)}
	m := f.known
	if m != nil {
		p.Until, p.Based = m.Last.LSN, m.Based
		if m.Made && !m.Gone {
			p.Slot = m.Slot
		}
	}
	switch {
	case m == nil:
	case m.System != s.origin.System:
		return p, &foreignError{s.origin.System, m.System}
	case s.name.Timeline < m.Timeline:
		return p, s.left(m)
	case s.name.Timeline == m.Timeline && s.end() <= m.Last.LSN:
		return p, s.stored(m)
	}
	t, why, err := f.pushPlan(s)
	if err != nil {
		return p, err
	}
	if p.Began = m == nil || why != ""; p.Began {
		if m, err = newMark(s.origin.System, s.name.Timeline, s.origin.SegmentSize, s.name.Start); err != nil {
			return p, err
		}
		if k := f.known; k != nil {
			m.Slot, m.Made, m.Gone = k.Slot, k.Made, k.Gone
		}
		p.Gap = why
		if why != "" {
			f.Missed(why, 0)
		}
	} else if err := s.follows(m, t); err != nil {
		return p, err
	}
	if err := f.Marks.Set(m, true); err != nil {
		return p, err
	}
	f.known = m
	err = f.pushLine(ctx, s, t, &p)
	p.Until, p.Based = f.known.Last.LSN, f.known.Based
	return p, err
}

// foreignError says that WAL is of another cluster.
type foreignError struct{ got, want uint64 }

func (e *foreignError) Error() string {
	return fmt.Sprintf("the WAL is of another cluster (system identifier %d) than the log (%d): it is not stored", e.got, e.want)
}

func (*foreignError) Hint() string {
	return "give this cluster a source of its own, or begin anew with `holdfast wal-push --new-stream`"
}

// pushPlan finds out how a segment comes into the log: through a turn to its timeline, or, for a reason, in a new lineage.
func (f *Follower) pushPlan(s *segmentFile) (t *turn, why string, err error) {
	m := f.known
	switch {
	case m == nil:
		return nil, "", nil
	case m.Segment != s.origin.SegmentSize:
		return nil, fmt.Sprintf("WAL segments are of %d bytes now, and were of %d", s.origin.SegmentSize, m.Segment), nil
	case s.name.Timeline == m.Timeline:
		if s.name.Start > m.Last.LSN {
			return nil, fmt.Sprintf("WAL from %s to %s was not given to wal-push", m.Last.LSN, s.name.Start), nil
		}
		return nil, "", nil
	}
	content, err := s.history()
	if err != nil {
		return nil, "", err
	}
	h, err := postgres.ParseHistory(s.name.Timeline, content)
	if err != nil {
		return nil, "", err
	}
	at, ok := h.SwitchOf(m.Timeline)
	parent, _ := h.Parent()
	start := at.SegmentStart(m.Segment)
	switch {
	case !ok || parent != m.Timeline:
		return nil, fmt.Sprintf("timeline %d did not come from timeline %d of the log", s.name.Timeline, m.Timeline), nil
	case s.name.Start != start || m.Last.LSN < start:
		return nil, fmt.Sprintf("WAL from %s to %s was not given to wal-push", min(m.Last.LSN, start), s.name.Start), nil
	}
	t = &turn{timeline: s.name.Timeline, at: at, history: content, time: m.onward().Time}
	if m.Last.LSN > at {
		place, ok := m.bound(start)
		if !ok || place.Sequence == 0 {
			return nil, fmt.Sprintf("timeline %d begins at %s, long before %s, up to where the log has timeline %d", s.name.Timeline, at, m.Last.LSN, m.Timeline), nil
		}
		t.after = &place
	}
	return t, "", nil
}

// history reads the history file of the segment's timeline, which stands beside it.
func (s *segmentFile) history() ([]byte, error) {
	path := filepath.Join(filepath.Dir(s.path), postgres.HistoryName(s.name.Timeline))
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the history of timeline %d: %w", s.name.Timeline, err)
	}
	return b, nil
}

// pushLine puts what the log does not have of a segment.
func (f *Follower) pushLine(ctx context.Context, s *segmentFile, t *turn, p *Pushed) (err error) {
	l := &line{f: f, m: f.known, q: newIntake(f.known.onward(), f.known.Segment, 1<<31-1), safe: make(chan struct{}, 1), archive: true}
	defer func() {
		f.known = l.m
		if l.writer != nil {
			err = errors.Join(err, l.writer.Close())
		}
	}()
	if l.m.Last.Place.Sequence == 0 && s.name.Timeline > 1 {
		if l.history, err = s.history(); err != nil {
			return err
		}
	}
	if t != nil {
		if err := l.turn(ctx, t); err != nil {
			return err
		}
		l.q = newIntake(l.m.onward(), l.m.Segment, 1<<31-1)
	}
	l.q.page = s.origin.PageSize
	now := time.Now()
	buf := make([]byte, log.MaxWAL)
	for at := l.m.Last.LSN; at < s.end(); {
		n, err := s.file.ReadAt(buf[:min(log.MaxWAL, int(s.end()-at))], int64(at-s.name.Start))
		if err != nil && !errors.Is(err, io.EOF) || n == 0 {
			return fmt.Errorf("read %s: %w", p.Name, errors.Join(err, io.ErrUnexpectedEOF))
		}
		if err := s.origin.Check(at, buf[:n]); err != nil {
			return fmt.Errorf("read %s: %w", p.Name, err)
		}
		if err := l.q.add(ctx, at, buf[:n], arrival{sent: now, came: now}); err != nil {
			return err
		}
		at += postgres.LSN(n)
		p.Stored += n
		if err := l.pushAll(ctx); err != nil {
			return err
		}
	}
	sum, err := s.sum()
	if err != nil {
		return err
	}
	return l.note(true, func(m *mark) {
		for i := range m.Bounds {
			if m.Bounds[i].LSN == s.name.Start {
				m.Bounds[i].Sum = sum
			}
		}
	})
}

// pushAll puts all that is in the intake.
func (l *line) pushAll(ctx context.Context) error {
	for {
		now := time.Now()
		b, _ := l.q.take(now, true, func(time.Time) time.Time { return now })
		if b == nil {
			return nil
		}
		flight, err := l.ready(ctx, b, now)
		if err != nil {
			return err
		}
		if err := l.depart(ctx, flight); err != nil {
			return err
		}
		<-flight.done
		if err := l.land(flight); err != nil {
			return err
		}
	}
}
