package postgres

import (
	"strconv"
	"strings"
)

// Label is a backup_label: from where recovery must begin.
type Label struct {
	Start      LSN    // WAL is needed from here on
	Segment    string // name of the WAL segment of Start
	Checkpoint LSN    // of the checkpoint's record
	Method     string // "streamed" over the replication protocol
	From       string // "primary" or "standby"
	Time       string // by the server's clock, in its own time zone
	Name       string // the label that was asked for
	Timeline   uint32 // of Start
	// Of an incremental backup of PostgreSQL 17 and later: where the one before it began; 0: it is none.
	IncrementalFrom     LSN
	IncrementalTimeline uint32
}

// ParseLabel parses a backup_label.
func ParseLabel(b []byte) (*Label, error) {
	l := &Label{}
	text, ok := strings.CutSuffix(string(b), "\n")
	if !ok || len(b) > 64<<10 {
		return nil, malformed("backup_label of %d bytes", len(b))
	}
	seen := map[string]bool{}
	for _, line := range strings.Split(text, "\n") {
		key, value, ok := strings.Cut(line, ": ")
		if !ok || seen[key] {
			return nil, malformed("backup_label: %q", brief(line))
		}
		seen[key] = true
		if err := l.set(key, value); err != nil {
			return nil, malformed("backup_label: %q: %v", brief(line), err)
		}
	}
	if l.Start == 0 || l.Checkpoint == 0 || l.Timeline == 0 {
		return nil, malformed("backup_label does not say where it begins")
	}
	return l, nil
}

// set takes one line. Lines that a later version adds are passed over.
func (l *Label) set(key, value string) error {
	var err error
	switch key {
	case "START WAL LOCATION":
		place, segment, _ := strings.Cut(value, " (file ")
		var ok bool
		if l.Segment, ok = strings.CutSuffix(segment, ")"); !ok {
			return malformed("no name of a file")
		}
		l.Start, err = ParseLSN(place)
	case "CHECKPOINT LOCATION":
		l.Checkpoint, err = ParseLSN(value)
	case "BACKUP METHOD":
		l.Method = value
	case "BACKUP FROM":
		l.From = value
	case "START TIME":
		l.Time = value
	case "LABEL":
		l.Name = value
	case "START TIMELINE":
		l.Timeline, err = timeline(value)
	case "INCREMENTAL FROM LSN":
		l.IncrementalFrom, err = ParseLSN(value)
	case "INCREMENTAL FROM TLI":
		l.IncrementalTimeline, err = timeline(value)
	}
	return err
}

func timeline(s string) (uint32, error) {
	v, err := strconv.ParseUint(s, 10, 32)
	if err != nil || v == 0 {
		return 0, malformed("timeline %q", brief(s))
	}
	return uint32(v), nil
}

// Tablespace is one that lies outside the data directory.
type Tablespace struct {
	OID      uint32
	Location string // absolute path
}

// ParseTablespaceMap parses a tablespace_map: lines of an oid and a path, in which line breaks and backslashes have a
// backslash before them.
func ParseTablespaceMap(b []byte) ([]Tablespace, error) {
	var out []Tablespace
	seen := map[uint32]bool{}
	for rest := string(b); rest != ""; {
		line, after, err := cutEscaped(rest)
		if err != nil {
			return nil, err
		}
		rest = after
		number, location, ok := strings.Cut(line, " ")
		id, valid := oid(number)
		if !ok || !valid || seen[id] || !strings.HasPrefix(location, "/") || strings.Contains(location, "\x00") {
			return nil, malformed("tablespace_map: %q", brief(line))
		}
		seen[id] = true
		out = append(out, Tablespace{id, location})
	}
	return out, nil
}

// cutEscaped takes the first line off s, without its backslashes.
func cutEscaped(s string) (line, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\n':
			return b.String(), s[i+1:], nil
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", malformed("tablespace_map: its last line has no end")
}

// AppendTablespaceMap appends a tablespace_map.
func AppendTablespaceMap(dst []byte, all []Tablespace) []byte {
	escape := strings.NewReplacer("\\", "\\\\", "\n", "\\\n", "\r", "\\\r")
	for _, t := range all {
		dst = strconv.AppendUint(dst, uint64(t.OID), 10)
		dst = append(dst, ' ')
		dst = append(dst, escape.Replace(t.Location)...)
		dst = append(dst, '\n')
	}
	return dst
}
