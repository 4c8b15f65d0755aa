package snapshot

import (
	"errors"
	"fmt"
	"regexp"
	"time"
	"unicode/utf8"
)

// Limits of manifests.
const (
	maxManifest = 16 << 20 // bytes
	maxText     = 256      // bytes of a tag, a kind, the tool's name
)

var kindPattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// ID names the snapshot.
func (m *Manifest) ID() ID {
	return ID{Source: Source{Host: m.Host, Name: m.Source}, Sequence: m.Sequence}
}

// ChainID returns the chain, which must have passed [Manifest.Check].
func (m *Manifest) ChainID() (ChainID, error) { return ParseChainID(m.Chain) }

// ParseManifest parses and checks the payload of a manifest. Members that it does not know are ignored. Errors:
// ErrUnsupported, ErrFormat.
func ParseManifest(payload []byte) (*Manifest, error) {
	if len(payload) > maxManifest {
		return nil, fmt.Errorf("parse manifest: %w: %d bytes", ErrFormat, len(payload))
	}
	m := new(Manifest)
	if err := Unmarshal(payload, m); err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	if err := m.Check(); err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	return m, nil
}

// Check reports what can be seen to be wrong without other objects.
func (m *Manifest) Check() error {
	for _, check := range []func() error{m.checkNames, m.checkPlace, m.checkTexts, m.checkKeys, m.checkLists, m.checkRefs, m.checkLog, m.checkPostgres} {
		if err := check(); err != nil {
			if errors.Is(err, ErrFormat) || errors.Is(err, ErrUnsupported) {
				return fmt.Errorf("manifest %s: %w", m.ID(), err)
			}
			return fmt.Errorf("manifest %s: %w: %w", m.ID(), ErrFormat, err)
		}
	}
	return nil
}

func (m *Manifest) checkNames() error {
	if m.Format != 1 {
		return fmt.Errorf("%w: format %d, this program knows 1", ErrUnsupported, m.Format)
	}
	if err := m.ID().Source.Check(); err != nil {
		return err
	}
	if !kindPattern.MatchString(m.Kind) {
		return fmt.Errorf("kind %q", brief(m.Kind))
	}
	if _, err := ParseRepositoryID(m.Repository); err != nil {
		return err
	}
	_, err := ParseChainID(m.Chain)
	return err
}

// checkPlace checks where the snapshot stands among the others of its source.
func (m *Manifest) checkPlace() error {
	if m.Sequence == 0 || m.Sequence > MaxSequence {
		return fmt.Errorf("sequence number %d", m.Sequence)
	}
	if _, err := ParseHash(m.Previous); (m.Sequence == 1) != (m.Previous == "") || m.Previous != "" && err != nil {
		return fmt.Errorf("hash %q of the manifest before", brief(m.Previous))
	}
	if m.Unfinished && !m.Partial {
		return errors.New("it is unfinished and says that nothing is missing")
	}
	ok := false
	switch m.Type {
	case Full:
		ok = m.Parent == 0 && m.ChainStart == m.Sequence
	case Differential:
		ok = m.Parent == m.ChainStart && m.ChainStart >= 1 && m.Parent < m.Sequence
	case Incremental:
		ok = m.Parent >= m.ChainStart && m.ChainStart >= 1 && m.Parent < m.Sequence
	default:
		return fmt.Errorf("type %q", brief(string(m.Type)))
	}
	if !ok {
		return fmt.Errorf("%s snapshot with parent %d in the chain of %d", m.Type, m.Parent, m.ChainStart)
	}
	return nil
}

func (m *Manifest) checkTexts() error {
	for _, t := range []time.Time{m.Started, m.Finished} {
		if t.IsZero() || t.Location() != time.UTC || t.Year() < 1 || t.Year() > 9999 {
			return fmt.Errorf("time %s: want one in UTC", t.Format(time.RFC3339Nano))
		}
	}
	if err := checkText("tool", m.Tool); err != nil {
		return err
	}
	seen := make(map[string]bool, len(m.Tags))
	for _, tag := range m.Tags {
		if err := checkText("tag", tag); err != nil {
			return err
		}
		if seen[tag] {
			return fmt.Errorf("tag %q comes twice", tag)
		}
		seen[tag] = true
	}
	return nil
}

// checkText refuses what could not be shown on one line, or would change how what stands around it is shown. What is
// refused never changes: by the tables of Unicode, which do, a text with a letter that is new today could not be read by
// an older program.
func checkText(what, s string) error {
	if s == "" || len(s) > maxText || !utf8.ValidString(s) {
		return fmt.Errorf("%s %q: want 1 to %d bytes of UTF-8", what, brief(s), maxText)
	}
	for _, r := range s {
		if unseen(r) {
			return fmt.Errorf("%s %q has the character %U", what, brief(s), r)
		}
	}
	return nil
}

// unseen reports whether a character is a control, can not be seen, or sets the direction of writing.
func unseen(r rune) bool {
	switch {
	case r < 0x20, 0x7f <= r && r <= 0x9f, r == 0xad, r == 0x61c, r == 0xfeff:
		return true
	case 0x200b <= r && r <= 0x200f, 0x2028 <= r && r <= 0x202e, 0x2060 <= r && r <= 0x206f:
		return true
	}
	return false
}

func (m *Manifest) checkKeys() error {
	if len(m.Keys) == 0 {
		return errors.New("no data key")
	}
	seen := make(map[string]bool, len(m.Keys))
	for i := range m.Keys {
		k := &m.Keys[i]
		if _, err := ParseHash(k.Key); err != nil {
			return fmt.Errorf("key id: %w", err)
		}
		if seen[k.Key] {
			return fmt.Errorf("key %s comes twice", k.Key)
		}
		seen[k.Key] = true
		if len(k.Wrapped) == 0 {
			return fmt.Errorf("key %s is wrapped for nobody", k.Key)
		}
		for _, w := range k.Wrapped {
			if w.Type == "" || w.Recipient == "" || len(w.Wrapped) == 0 {
				return fmt.Errorf("key %s: empty entry for recipient %q", k.Key, brief(w.Recipient))
			}
		}
	}
	return nil
}

func (m *Manifest) checkLists() error {
	if len(m.Lists) == 0 {
		return errors.New("no pack list")
	}
	seen := make(map[string]bool, len(m.Lists))
	for _, l := range m.Lists {
		if _, err := ParseHash(l.List); err != nil {
			return fmt.Errorf("pack list: %w", err)
		}
		if seen[l.List] {
			return fmt.Errorf("pack list %s comes twice", l.List)
		}
		seen[l.List] = true
		if l.Size <= int64(len(listHeader)) || l.Size > MaxPack || l.Packs < 0 || l.Bytes < 0 {
			return fmt.Errorf("pack list %s of %d bytes with %d packs of %d bytes", l.List, l.Size, l.Packs, l.Bytes)
		}
	}
	ranges := m.WithoutRanges()
	if err := checkRanges(ranges); err != nil {
		return fmt.Errorf("packs left out: %w", err)
	}
	if n := len(ranges); m.NextPack == 0 || m.NextPack > MaxPackNumber+1 || n > 0 && ranges[n-1].Last >= m.NextPack {
		return fmt.Errorf("next pack %d", m.NextPack)
	}
	return nil
}

// WithoutRanges returns the packs that are left out of the lists as ranges.
func (m *Manifest) WithoutRanges() []Range {
	ranges := make([]Range, len(m.Without))
	for i, w := range m.Without {
		ranges[i] = Range{First: w[0], Last: w[1]}
	}
	return ranges
}

func (m *Manifest) checkRefs() error {
	if err := m.checkRef("root", m.Root); err != nil || m.Report == nil {
		return err
	}
	return m.checkRef("report", *m.Report)
}

// checkRef checks a ref of the manifest: it must lead to a pack of the snapshot.
func (m *Manifest) checkRef(what string, j JSONRef) error {
	ref, err := j.Ref()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	for _, w := range m.Without {
		if w[0] <= ref.Pack && ref.Pack <= w[1] {
			return fmt.Errorf("%s is in pack %d, which is left out", what, ref.Pack)
		}
	}
	if ref.Pack >= m.NextPack {
		return fmt.Errorf("%s is in pack %d, the next pack is %d", what, ref.Pack, m.NextPack)
	}
	return nil
}
