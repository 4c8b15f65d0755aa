package postgres

import (
	"fmt"
	"strconv"
	"strings"
)

// TimelineHistory says from which timelines, and where, a timeline came.
type TimelineHistory struct {
	Timeline uint32
	Entries  []HistoryEntry // from the oldest on; none of timeline 1
}

// HistoryEntry is one line of a history file.
type HistoryEntry struct {
	Parent uint32 // the timeline that was left
	Switch LSN    // where: the first byte that is of the next one
	Reason string // for people
}

// maxHistory is the size of the largest history file that is read, in bytes. PostgreSQL has no limit; each promotion adds
// a line of about 50 bytes.
const maxHistory = 4 << 20

// ParseHistory parses the content of the history file of a timeline.
func ParseHistory(timeline uint32, b []byte) (*TimelineHistory, error) {
	if len(b) > maxHistory {
		return nil, malformed("a history of timeline %d of %d bytes", timeline, len(b))
	}
	h := &TimelineHistory{Timeline: timeline}
	for n, line := range strings.Split(string(b), "\n") {
		text := strings.TrimLeft(line, " \t\r\v\f")
		if text == "" || text[0] == '#' {
			continue
		}
		e, err := parseHistoryLine(text)
		if err != nil {
			return nil, fmt.Errorf("history of timeline %d, line %d: %w", timeline, n+1, err)
		}
		if k := len(h.Entries); k > 0 && (h.Entries[k-1].Parent >= e.Parent || h.Entries[k-1].Switch > e.Switch) {
			return nil, malformed("history of timeline %d, line %d: timeline %d at %s comes after timeline %d at %s", timeline, n+1,
				e.Parent, e.Switch, h.Entries[k-1].Parent, h.Entries[k-1].Switch)
		}
		if e.Parent >= timeline {
			return nil, malformed("history of timeline %d, line %d: it comes from timeline %d", timeline, n+1, e.Parent)
		}
		h.Entries = append(h.Entries, e)
	}
	if timeline == 0 || timeline > 1 && len(h.Entries) == 0 {
		return nil, malformed("the history of timeline %d does not say where it comes from", timeline)
	}
	return h, nil
}

// parseHistoryLine parses "1	0/3000000	no recovery target specified".
func parseHistoryLine(text string) (HistoryEntry, error) {
	number, rest, ok := cutSpace(text)
	if !ok {
		return HistoryEntry{}, malformed("%q", brief(text))
	}
	parent, err := strconv.ParseUint(number, 10, 32)
	if err != nil || parent == 0 {
		return HistoryEntry{}, malformed("timeline %q", brief(number))
	}
	place, reason, _ := cutSpace(rest)
	at, err := ParseLSN(place)
	if err != nil {
		return HistoryEntry{}, err
	}
	return HistoryEntry{Parent: uint32(parent), Switch: at, Reason: strings.TrimSpace(reason)}, nil
}

// cutSpace cuts at the first run of blanks and tabs.
func cutSpace(s string) (before, after string, found bool) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, "", false
	}
	return s[:i], strings.TrimLeft(s[i:], " \t"), true
}

// SwitchOf is where a timeline of the history was left; false: it is not in the history, or it is the last one.
func (h *TimelineHistory) SwitchOf(timeline uint32) (LSN, bool) {
	for _, e := range h.Entries {
		if e.Parent == timeline {
			return e.Switch, true
		}
	}
	return 0, false
}

// Parent is from which timeline the last one came, and where; 0: from none.
func (h *TimelineHistory) Parent() (timeline uint32, at LSN) {
	if n := len(h.Entries); n > 0 {
		return h.Entries[n-1].Parent, h.Entries[n-1].Switch
	}
	return 0, 0
}

// Ancestor is the history file of a timeline that this one came from, as far as this one tells, which begins with it; nil: it
// did not come from that, or that is the first, which has none.
func (h *TimelineHistory) Ancestor(timeline uint32) []byte {
	var out []byte
	for _, e := range h.Entries {
		if e.Parent == timeline {
			return out
		}
		out = fmt.Appendf(out, "%d\t%s\t%s\n", e.Parent, e.Switch, e.Reason)
	}
	return nil
}

// At is the timeline of the history to which the byte of WAL at l belongs.
func (h *TimelineHistory) At(l LSN) uint32 {
	for _, e := range h.Entries {
		if l < e.Switch {
			return e.Parent
		}
	}
	return h.Timeline
}
