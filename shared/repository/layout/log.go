package layout

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// LogPrefix begins the keys of a source's logs.
func LogPrefix(s snapshot.Source) string { return SourcePrefix(s) + "log/" }

// StreamPrefix begins the keys of one stream; stream has 32 hex digits.
func StreamPrefix(s snapshot.Source, stream string) string { return LogPrefix(s) + stream + "/" }

// EpochPrefix begins the keys of one epoch.
func EpochPrefix(s snapshot.Source, stream string, epoch uint64) string {
	return StreamPrefix(s, stream) + sequence(epoch) + "/"
}

// joined is the directory of segments in an epoch.
const joined = "joined/"

// LogObject names an object of a log by what its key says.
type LogObject struct {
	Stream      string // 32 hex digits
	Epoch       uint64
	First, Last uint64 // records; 0 and 0: the head
	Joined      bool   // a segment, made of several pieces
}

// Head reports whether it is the head of an epoch.
func (o LogObject) Head() bool { return o.Last == 0 }

// LogKey is the key of an object of a log.
func LogKey(s snapshot.Source, o LogObject) string {
	prefix := EpochPrefix(s, o.Stream, o.Epoch)
	switch {
	case o.Head():
		return prefix + "head.json"
	case o.Joined:
		prefix += joined
	}
	return prefix + sequence(o.First) + "-" + sequence(o.Last)
}

// ParseLog returns what the key of an object of a log says.
func ParseLog(s snapshot.Source, key string) (o LogObject, err error) {
	bad := fmt.Errorf("key %q is not that of an object in a log of %s", key, s)
	rest, ok := strings.CutPrefix(key, LogPrefix(s))
	if !ok {
		return o, bad
	}
	stream, rest, _ := strings.Cut(rest, "/")
	epoch, name, _ := strings.Cut(rest, "/")
	o.Stream = stream
	if _, err := ParseChain(stream); err != nil {
		return o, bad
	}
	if o.Epoch, err = parseSequence(epoch); err != nil {
		return o, bad
	}
	if name == "head.json" {
		return o, nil
	}
	if rest, ok := strings.CutPrefix(name, joined); ok {
		name, o.Joined = rest, true
	}
	first, last, _ := strings.Cut(name, "-")
	var errs [2]error
	o.First, errs[0] = parseSequence(first)
	o.Last, errs[1] = parseSequence(last)
	if errs[0] != nil || errs[1] != nil || o.First > o.Last {
		return o, bad
	}
	return o, nil
}

// PiecePrefixes are prefixes of keys that together hold all pieces of an epoch whose first record is number from or a
// later one, and the head where from is 1: so many listings find the end of a long epoch without listing all of it.
func PiecePrefixes(s snapshot.Source, stream string, epoch, from uint64) []string {
	prefix := EpochPrefix(s, stream, epoch)
	digits := sequence(max(from, 1))
	out := []string{prefix + digits}
	for i := len(digits) - 1; i >= 0; i-- {
		for d := digits[i] + 1; d <= '9'; d++ {
			out = append(out, prefix+digits[:i]+string(d))
		}
	}
	return out
}

// SegmentPrefix begins the keys of the segments of an epoch.
func SegmentPrefix(s snapshot.Source, stream string, epoch uint64) string {
	return EpochPrefix(s, stream, epoch) + joined
}

// cutName names the records of an epoch up to a number in keys of announcements and records of their removal.
func cutName(stream string, epoch, last uint64) string {
	return stream + "-" + sequence(epoch) + "-" + sequence(last) + ".json"
}

// CondemnedLogPrefix begins the keys of announced removals of records.
func CondemnedLogPrefix(s snapshot.Source) string { return CondemnedPrefix(s) + "log/" }

// CondemnedLogKey announces that the records of an epoch up to last will be removed.
func CondemnedLogKey(s snapshot.Source, stream string, epoch, last uint64) string {
	return CondemnedLogPrefix(s) + cutName(stream, epoch, last)
}

// ExpiredLogPrefix begins the keys of records of removed parts of logs.
func ExpiredLogPrefix(s snapshot.Source) string { return ExpiredPrefix(s) + "log/" }

// ExpiredLogKey is the key of the record that the records of an epoch up to last were removed by retention.
func ExpiredLogKey(s snapshot.Source, stream string, epoch, last uint64) string {
	return ExpiredLogPrefix(s) + cutName(stream, epoch, last)
}

// ParseCut returns what a key says that [CondemnedLogKey] or [ExpiredLogKey] made; prefix is the one of its sort.
func ParseCut(prefix, key string) (stream string, epoch, last uint64, err error) {
	bad := fmt.Errorf("key %q is not that of removed records", key)
	name, ok := strings.CutPrefix(key, prefix)
	name, isJSON := strings.CutSuffix(name, ".json")
	parts := strings.Split(name, "-")
	if !ok || !isJSON || len(parts) != 3 {
		return "", 0, 0, bad
	}
	if _, err := ParseChain(parts[0]); err != nil {
		return "", 0, 0, bad
	}
	if epoch, err = parseSequence(parts[1]); err != nil {
		return "", 0, 0, bad
	}
	if last, err = parseSequence(parts[2]); err != nil {
		return "", 0, 0, bad
	}
	return parts[0], epoch, last, nil
}

// DamagedLogPrefix begins the keys of records that objects of logs failed a check.
func DamagedLogPrefix(s snapshot.Source) string { return DamagedPrefix(s) + "log/" }

// DamagedLogKey is the key of the record that an object of a log failed a check.
func DamagedLogKey(s snapshot.Source, o LogObject) string {
	sort := "piece"
	switch {
	case o.Head():
		sort = "head"
	case o.Joined:
		sort = "joined"
	}
	return DamagedLogPrefix(s) + strings.Join([]string{o.Stream, sequence(o.Epoch), sequence(o.First), sequence(o.Last), sort}, "-") + ".json"
}

// ParseDamagedLog returns the object that a key names which [DamagedLogKey] made.
func ParseDamagedLog(s snapshot.Source, key string) (o LogObject, err error) {
	bad := fmt.Errorf("key %q is not that of a damaged object of a log", key)
	name, ok := strings.CutPrefix(key, DamagedLogPrefix(s))
	parts := strings.Split(strings.TrimSuffix(name, ".json"), "-")
	if !ok || len(parts) != 5 {
		return o, bad
	}
	o = LogObject{Stream: parts[0], Joined: parts[4] == "joined"}
	for i, to := range []*uint64{&o.Epoch, &o.First, &o.Last} {
		if *to, err = strconv.ParseUint(parts[i+1], 10, 64); err != nil {
			return o, bad
		}
	}
	if DamagedLogKey(s, o) != key {
		return o, bad
	}
	if _, err := ParseChain(o.Stream); err != nil {
		return o, bad
	}
	return o, nil
}
