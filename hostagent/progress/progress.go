// Package progress shows how far a long operation has come: on a terminal one line that is rewritten, elsewhere a plain
// line from time to time, for programs one JSON document a line. Use [New], then [Meter.Run] around the work.
package progress

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
)

// Mode is how progress is shown.
type Mode int

// The modes.
const (
	Off      Mode = iota // nothing
	Terminal             // one line, rewritten
	Plain                // a line every few seconds
	JSON                 // a JSON document every few seconds
)

// interval is the time between two lines.
func (m Mode) interval() time.Duration {
	switch m {
	case Terminal:
		return 200 * time.Millisecond
	case JSON:
		return time.Second
	}
	return 5 * time.Second
}

// Meter counts what is done. Its methods are safe for concurrent use.
type Meter struct {
	w     io.Writer
	mode  Mode
	width int
	now   func() time.Time

	mu      sync.Mutex // guards what follows
	what    string
	began   time.Time
	done    Counts
	total   Counts // zero: unknown
	current string
	phase   string // what is done that can't be counted; empty: what is counted
	rate    rate
	shown   bool // a terminal line is there to be erased
}

// Counts is an amount of work.
type Counts struct {
	Files, Bytes uint64
	Read         uint64 // bytes that had to be read or moved; for information only
}

// New makes a meter that writes to w; width is the terminal's, in columns.
func New(w io.Writer, mode Mode, width int, now func() time.Time) *Meter {
	return &Meter{w: w, mode: mode, width: width, now: now}
}

// Add counts finished work.
func (m *Meter) Add(files, bytes, read uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done.Files += files
	m.done.Bytes += bytes
	m.done.Read += read
}

// Current names what is being worked on.
func (m *Meter) Current(path string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.current = path
}

// Phase says in words what is done from now on, where files and bytes say nothing of it; empty: they count again.
func (m *Meter) Phase(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.phase = text
}

// Total says how much work there is in all, as soon as that is known.
func (m *Meter) Total(files, bytes uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total = Counts{Files: files, Bytes: bytes}
}

// Done returns what was counted.
func (m *Meter) Done() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.done
}

// Run shows progress while work runs, and erases the line afterwards. what begins each line, such as "backup etc".
func (m *Meter) Run(what string, work func() error) error {
	m.mu.Lock()
	m.what, m.began = what, m.now()
	m.done, m.total, m.current, m.phase, m.rate = Counts{}, Counts{}, "", "", rate{}
	m.mu.Unlock()
	if m.mode == Off {
		return work()
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(m.mode.interval())
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
				m.Show()
			}
		}
	}()
	defer func() {
		close(stop)
		<-stopped
		m.Clear()
	}()
	return work()
}

// Clear erases the line on a terminal, so that something else can be printed.
func (m *Meter) Clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.shown {
		fmt.Fprint(m.w, "\r\x1b[K")
		m.shown = false
	}
}

// Show writes one line now.
func (m *Meter) Show() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	m.rate.observe(now, m.done.Bytes)
	switch m.mode {
	case Terminal:
		fmt.Fprintf(m.w, "\r\x1b[K%s", fit(m.line(now), m.current, m.width-1))
		m.shown = true
	case Plain:
		fmt.Fprintln(m.w, m.line(now))
	case JSON:
		b, err := json.Marshal(m.document(now))
		if err == nil {
			fmt.Fprintf(m.w, "%s\n", b)
		}
	}
}

// line is the progress in words. The caller holds mu.
func (m *Meter) line(now time.Time) string {
	parts := []string{m.what + ": " + clock(now.Sub(m.began))}
	if m.phase != "" {
		return parts[0] + ", " + m.phase
	}
	if part, ok := m.share(); ok {
		parts = append(parts, fmt.Sprintf("%.1f %%", 100*part))
	}
	if m.done.Files > 0 || m.total.Files > 0 {
		parts = append(parts, of(humanize.Comma(int64(m.done.Files)), humanize.Comma(int64(m.total.Files)), m.total.Files > 0)+" files")
	}
	parts = append(parts, of(humanize.IBytes(m.done.Bytes), humanize.IBytes(m.total.Bytes), m.total.Bytes > 0 && !m.beyond()))
	if r := m.rate.perSecond(); r >= 1 {
		parts = append(parts, humanize.IBytes(uint64(r))+"/s")
	}
	if left, ok := m.left(now); ok {
		parts = append(parts, clock(left)+" left")
	}
	return strings.Join(parts, ", ")
}

func of(done, total string, known bool) string {
	if known {
		return done + " of " + total
	}
	return done
}

// document is the progress for programs. The caller holds mu.
func (m *Meter) document(now time.Time) any {
	doc := struct {
		Progress   string   `json:"progress"`
		Phase      string   `json:"phase,omitempty"`
		Seconds    float64  `json:"seconds"`
		Files      uint64   `json:"files"`
		Bytes      uint64   `json:"bytes"`
		TotalFiles uint64   `json:"total_files,omitempty"`
		TotalBytes uint64   `json:"total_bytes,omitempty"`
		Rate       uint64   `json:"bytes_per_second"`
		Left       *float64 `json:"seconds_left,omitempty"`
	}{
		m.what, m.phase, now.Sub(m.began).Seconds(), m.done.Files, m.done.Bytes, m.total.Files, m.total.Bytes,
		uint64(m.rate.perSecond()), nil,
	}
	if left, ok := m.left(now); ok {
		seconds := left.Seconds()
		doc.Left = &seconds
	}
	return doc
}

// beyond reports whether more was done than was announced: what the whole is nobody knows then, such as where a log grows
// while it is copied. The caller holds mu.
func (m *Meter) beyond() bool { return m.total.Bytes > 0 && m.done.Bytes > m.total.Bytes }

// share is how much of the whole is done, 0 to 1. The caller holds mu.
func (m *Meter) share() (float64, bool) {
	switch {
	case m.beyond():
		return 0, false
	case m.total.Bytes > 0:
		return min(1, float64(m.done.Bytes)/float64(m.total.Bytes)), true
	case m.total.Files > 0:
		return min(1, float64(m.done.Files)/float64(m.total.Files)), true
	}
	return 0, false
}

// left is the time that the rest will take, going by the time so far. The caller holds mu.
func (m *Meter) left(now time.Time) (time.Duration, bool) {
	part, ok := m.share()
	spent := now.Sub(m.began)
	if !ok || part <= 0 || spent < 2*time.Second {
		return 0, false
	}
	if r := m.rate.perSecond(); r >= 1 && m.total.Bytes > 0 {
		rest := max(0, float64(m.total.Bytes)-float64(m.done.Bytes))
		return time.Duration(rest / r * float64(time.Second)), true
	}
	return time.Duration(float64(spent) * (1 - part) / part), true
}

// clock is a duration as 0:07, 12:34 or 1:02:03.
func clock(d time.Duration) string {
	s := int(d.Seconds())
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// fit puts line and as much of the end of path as there is room for into width columns.
func fit(line, path string, width int) string {
	line = tail(line, width, false)
	room := width - utf8.RuneCountInString(line) - 2
	const least = 12 // less of a path says nothing
	if path == "" || room < least {
		return line
	}
	return line + "  " + tail(path, room, true)
}

// tail shortens s to width columns, at its beginning or at its end. Control characters, which a file's name may hold, do
// not reach the terminal.
func tail(s string, width int, atBeginning bool) string {
	r := []rune(strings.ToValidUTF8(s, "?"))
	for i, c := range r {
		if !strconv.IsPrint(c) {
			r[i] = '?'
		}
	}
	switch {
	case len(r) <= width:
	case width < 1:
		return ""
	case atBeginning:
		r = append([]rune{'…'}, r[len(r)-width+1:]...)
	default:
		r = append(r[:width-1:width-1], '…')
	}
	return string(r)
}

// Off reports whether nothing is shown, so that nobody need count what only the display would use.
func (m *Meter) Off() bool { return m.mode == Off }
