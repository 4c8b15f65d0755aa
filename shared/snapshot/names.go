package snapshot

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// MaxSequence is the highest sequence number: keys have ten digits for it.
const MaxSequence = 9_999_999_999

// parseHex fills dst from exactly so many lower-case hex digits.
func parseHex(dst []byte, s, what string) error {
	if len(s) != 2*len(dst) || strings.ContainsAny(s, "ABCDEF") {
		return fmt.Errorf("%w: %s %q: want %d lower-case hex digits", ErrFormat, what, brief(s), 2*len(dst))
	}
	if _, err := hex.Decode(dst, []byte(s)); err != nil {
		return fmt.Errorf("%w: %s %q: want %d lower-case hex digits", ErrFormat, what, brief(s), 2*len(dst))
	}
	return nil
}

// ParseHash parses 64 lower-case hex digits.
func ParseHash(s string) (h Hash, err error) { return h, parseHex(h[:], s, "hash") }

// ParseChainID parses 32 lower-case hex digits.
func ParseChainID(s string) (c ChainID, err error) { return c, parseHex(c[:], s, "chain id") }

// ParseRepositoryID parses 32 lower-case hex digits.
func ParseRepositoryID(s string) (r RepositoryID, err error) {
	return r, parseHex(r[:], s, "repository id")
}

// ParseID parses "host/source@42", the full name of a snapshot.
func ParseID(s string) (ID, error) {
	sel, err := ParseSelector(s)
	if err != nil {
		return ID{}, err
	}
	if sel.Host == "" || sel.Sequence == 0 {
		return ID{}, fmt.Errorf("snapshot %q: want host/source@number", brief(s))
	}
	return ID{Source: Source{Host: sel.Host, Name: sel.Name}, Sequence: sel.Sequence}, nil
}

// Selector is what a user writes to name a source or one of its snapshots: "source", "host/source", and either of them
// with "@42" or "@latest".
type Selector struct {
	Host     string // empty: the user's own host
	Name     string
	Sequence uint64 // 0: none was given
	Latest   bool   // "@latest" was given
}

// ParseSelector parses what a user wrote.
func ParseSelector(s string) (Selector, error) {
	var sel Selector
	source, at, hasAt := strings.Cut(s, "@")
	sel.Name = source
	check := Source{Host: "host", Name: source}
	if host, name, ok := strings.Cut(source, "/"); ok {
		sel.Host, sel.Name = host, name
		check = Source{Host: host, Name: name}
	}
	if err := check.Check(); err != nil {
		return Selector{}, fmt.Errorf("snapshot %q: %w", brief(s), err)
	}
	switch {
	case !hasAt:
	case at == "latest":
		sel.Latest = true
	default:
		n, err := parseSequence(at)
		if err != nil {
			return Selector{}, fmt.Errorf("snapshot %q: %w", brief(s), err)
		}
		sel.Sequence = n
	}
	return sel, nil
}

// parseSequence parses a sequence number as String writes it: no sign, no leading zeros.
func parseSequence(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 || n > MaxSequence || s[0] == '+' || s[0] == '0' {
		return 0, fmt.Errorf("sequence number %q: want a number from 1, or \"latest\"", brief(s))
	}
	return n, nil
}

func (s Selector) String() string {
	text := s.Name
	if s.Host != "" {
		text = s.Host + "/" + text
	}
	switch {
	case s.Latest:
		text += "@latest"
	case s.Sequence != 0:
		text += "@" + strconv.FormatUint(s.Sequence, 10)
	}
	return text
}
