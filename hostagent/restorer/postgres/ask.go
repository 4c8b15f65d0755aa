package postgres

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	pg "github.com/btcdecoded/holdfast/shared/postgres"
)

// answer is what who fills a spool says to a name.
type answer struct {
	Status string `json:"status"`
	Error  string `json:"error,omitempty"`
}

// The words of an answer.
const (
	statusReady  = "ready"  // it can be taken
	statusAbsent = "absent" // it is known that there is no such file
	statusFault  = "fault"
)

// asked is a name that the server asks for.
type asked struct {
	name    string
	history uint32 // timeline; 0: it is a segment
	segment segment
}

// parseFile reads a name as restore_command gets it.
func parseFile(name string, size uint64) (asked, error) {
	if size == 0 {
		size = pg.DefaultSegmentSize // there is no log, and no segment that could be found
	}
	n, err := pg.ParseName(name, uint32(size)) //nolint:gosec // at most 1 GiB
	switch {
	case err != nil:
		return asked{}, err
	case n.Kind == pg.History:
		return asked{name: name, history: n.Timeline}, nil
	case n.Kind == pg.Segment:
		return asked{name: name, segment: segment{n.Timeline, uint64(n.Start) / size}}, nil
	}
	return asked{}, fmt.Errorf("%q is neither a WAL segment nor a timeline's history", name)
}

// judge says what a plan alone tells of a file: whether it can be there at all.
func (p *Plan) judge(f asked) (absent bool) {
	if f.history != 0 {
		return !slices.Contains(p.Stored, f.history)
	}
	return !slices.ContainsFunc(p.Legs, func(l Leg) bool { return l.has(f.segment, p.Segment) })
}

// ask waits until a file can be taken, or it is known that it can't.
func (f *feed) ask(ctx context.Context, name string) answer {
	want, err := parseFile(name, f.plan.Segment)
	if err != nil {
		return answer{statusFault, err.Error()}
	}
	switch {
	case f.plan.judge(want):
		return answer{Status: statusAbsent}
	case want.history == 0:
		return f.await(ctx, want.segment, name)
	case missing(f.spool.path(keepName, name)):
		return answer{statusFault, fmt.Sprintf("the history of timeline %d is not in the spool", want.history)}
	}
	return answer{Status: statusReady}
}

// await waits for a segment of the branch.
func (f *feed) await(ctx context.Context, s segment, name string) answer {
	stop := context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.changed.Broadcast()
	})
	defer stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.hurry = nil }()
	counted := false
	count := func() {
		if !counted {
			f.asked[s]++
		}
		counted = true
	}
	for {
		_, known := f.index[s]
		switch {
		case ctx.Err() != nil:
			return answer{statusFault, ctx.Err().Error()}
		case !missing(f.spool.ready(name)):
			return answer{Status: statusReady}
		case f.tail != nil && *f.tail == s:
			count()
			return answer{Status: statusReady}
		case f.err != nil:
			return answer{statusFault, f.err.Error()}
		case f.first != (segment{}) && s.timeline == f.first.timeline && s.number < f.first.number:
			return answer{Status: statusAbsent} // the snapshot has it
		case known && (s != f.next || f.done):
			count()
			if err := f.spool.clearReady(); err != nil {
				return answer{statusFault, err.Error()}
			}
			back := s
			f.wanted = &back
			f.next = s
			f.done = false
			f.changed.Broadcast()
		case f.done:
			return answer{Status: statusAbsent}
		default:
			f.hurry = &s
		}
		f.changed.Wait()
	}
}

// repeated is the segment that was asked for again most often since the counts were cleared, and how often.
func (f *feed) repeated() (segment, int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var most segment
	for s, n := range f.asked {
		if n > f.asked[most] {
			most = s
		}
	}
	return most, f.asked[most]
}

func (f *feed) clearRepeated() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.asked)
}

// state is how far the feed has come.
func (f *feed) state() (guard, end pg.LSN, done bool, bytes uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.guard, f.end, f.done, f.bytes, f.err
}

// desk answers those who ask at the socket of a spool.
type desk struct {
	listener net.Listener
	working  sync.WaitGroup
}

// open begins to answer.
func (f *feed) open(ctx context.Context) (*desk, error) {
	path := f.spool.path(socketName)
	_ = os.Remove(path) // of who died; the lock is ours
	at, done, err := shortPath(f.spool.dir)
	if err != nil {
		return nil, err
	}
	defer done()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", at+"/"+socketName)
	if err != nil {
		return nil, err
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // under a name that is ours no more
	}
	if err := errors.Join(os.Chmod(path, 0o600), f.spool.account.Give(path)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	d := &desk{listener: l}
	d.working.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d.working.Go(func() { f.serve(ctx, c) })
		}
	})
	return d, nil
}

func (d *desk) close() {
	_ = d.listener.Close() // nothing is written
	d.working.Wait()
}

// serve answers one question.
func (f *feed) serve(ctx context.Context, c net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer func() { _ = c.Close() }() // who asked reads until then
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	name, err := bufio.NewReaderSize(c, 256).ReadString('\n')
	if err != nil || len(name) > 128 {
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	go func() { // who asked is gone
		_, _ = c.Read(make([]byte, 1))
		cancel()
	}()
	b, err := json.Marshal(f.ask(ctx, strings.TrimSuffix(name, "\n")))
	if err != nil {
		return
	}
	_, _ = c.Write(append(b, '\n')) // who asked sees that it is short
}

// shortPath gives a directory under a path that is short enough for sockets.
func shortPath(dir string) (path string, done func(), err error) {
	if len(dir)+1+len(socketName) < 100 {
		return dir, func() {}, nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d", d.Fd()), func() { _ = d.Close() }, nil // only a way
}

// askAt asks who fills a spool. Errors: errNobody where nobody does.
func askAt(ctx context.Context, spool, name string) (answer, error) {
	at, done, err := shortPath(spool)
	if err != nil {
		return answer{}, err
	}
	defer done()
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "unix", at+"/"+socketName)
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", errNobody, err)
	}
	defer func() { _ = c.Close() }() // it was heard
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })
	defer stop()
	if _, err := c.Write([]byte(name + "\n")); err != nil {
		return answer{}, fmt.Errorf("%w: %w", errNobody, err)
	}
	var a answer
	if err := json.NewDecoder(c).Decode(&a); err != nil {
		return answer{}, fmt.Errorf("%w: it ended before it answered: %w", errNobody, err)
	}
	return a, nil
}

// errNobody says that nobody fills a spool.
var errNobody = errors.New("nobody fills the spool")
