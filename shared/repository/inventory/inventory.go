// Package inventory lists everything that a repository has of one source, in one listing, and sorts it by what the
// keys say. Verification, copying and pruning begin here. Nothing is read but the listing: a key proves nothing about
// the bytes under it.
//
// Use [Take].
package inventory

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Checksum compares the checksum that the store has recorded with the name of an object that is named by its bytes.
type Checksum uint8

// The results of the comparison.
const (
	NotRecorded Checksum = iota // the listing does not tell
	Matches
	Differs
)

// Object is one object as the listing shows it.
type Object struct {
	Size     int64     // bytes
	Modified time.Time // when the store received it, by the store's clock
	Checksum Checksum  // packs and lists only
	Class    objstore.Class
}

// Pack names a pack of the source.
type Pack struct {
	Chain snapshot.ChainID
	ID    snapshot.Hash
}

// Key names a key object of the source.
type Key struct {
	ID        string // key id, hex
	Recipient string // recipient id, 32 hex digits
}

// Mark names a mark.
type Mark struct {
	Sequence uint64
	ID       string // 32 hex digits
}

// Inventory is what a source has. About 150 bytes are kept for each pack.
type Inventory struct {
	Source    snapshot.Source
	Manifests map[uint64]Object
	Condemned map[uint64]Object
	Expired   map[uint64]Object
	Packs     map[Pack]Object
	Lists     map[snapshot.Hash]Object
	Keys      map[Key]Object
	Marks     map[Mark]Object
	Damaged   map[snapshot.Hash]Object
	Receipts  map[string]Object // by object key

	Logs         map[LogName]*LogEpoch
	LogCondemned map[Cut]Object
	LogExpired   map[Cut]Object
	LogDamaged   map[layout.LogObject]Object

	Unknown []objstore.Info // keys that the format does not know
	Objects int
	Newest  time.Time // the latest arrival of any object: the store's clock shows at least this

	hours map[int64]bool // hours since 1970 in which any object arrived
}

// Take lists the source.
func Take(ctx context.Context, store objstore.Store, src snapshot.Source) (*Inventory, error) {
	return TakeParts(ctx, store, src, layout.SourcePrefix(src))
}

// TakeParts lists only what lies below some prefixes of the source, in this order. Prefixes must not overlap.
func TakeParts(ctx context.Context, store objstore.Store, src snapshot.Source, prefixes ...string) (*Inventory, error) {
	inv := &Inventory{
		Source: src, Manifests: map[uint64]Object{}, Condemned: map[uint64]Object{}, Expired: map[uint64]Object{},
		Packs: map[Pack]Object{}, Lists: map[snapshot.Hash]Object{}, Keys: map[Key]Object{}, Marks: map[Mark]Object{},
		Damaged: map[snapshot.Hash]Object{}, Receipts: map[string]Object{}, hours: map[int64]bool{},
		Logs: map[LogName]*LogEpoch{}, LogCondemned: map[Cut]Object{}, LogExpired: map[Cut]Object{}, LogDamaged: map[layout.LogObject]Object{},
	}
	for _, prefix := range prefixes {
		if err := store.List(ctx, prefix, inv.note); err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, err)
		}
	}
	return inv, nil
}

// note files one object of the listing.
func (inv *Inventory) note(o objstore.Info) error {
	inv.Objects++
	inv.hours[o.Modified.Unix()/3600] = true
	if o.Modified.After(inv.Newest) {
		inv.Newest = o.Modified
	}
	if !inv.add(o, strings.TrimPrefix(o.Key, layout.SourcePrefix(inv.Source))) {
		inv.Unknown = append(inv.Unknown, o)
	}
	return nil
}

// Witnessed is how much of the time from one moment to another the arrivals of objects bear witness to: of each gap
// between arrivals at most limit counts. A clock that jumps, and everything that arrives afterwards, adds no more than
// one gap. Arrivals are told apart by the hour.
func (inv *Inventory) Witnessed(from, to time.Time, limit time.Duration) time.Duration {
	var sum time.Duration
	last := from
	step := func(at time.Time) {
		if at.After(last) {
			sum += min(at.Sub(last), limit)
			last = at
		}
	}
	for _, hour := range slices.Sorted(maps.Keys(inv.hours)) {
		if at := time.Unix(hour*3600, 0); at.Before(to) {
			step(at)
		}
	}
	step(to)
	return sum
}

// add files one object by its key and reports whether the format knows such a key.
func (inv *Inventory) add(o objstore.Info, rest string) bool {
	obj := Object{Size: o.Size, Modified: o.Modified, Class: o.Class}
	kind, name, ok := strings.Cut(rest, "/")
	if !ok {
		return false
	}
	if ours, known := inv.addDocumentOfLog(kind, name, o.Key, obj); ours {
		return known
	}
	src := inv.Source
	switch kind {
	case "log":
		return inv.addLog(o, obj)
	case "snapshots":
		return addNumbered(inv.Manifests, layout.ManifestPrefix(src), o.Key, obj)
	case "condemned":
		return addNumbered(inv.Condemned, layout.CondemnedPrefix(src), o.Key, obj)
	case "expired":
		return addNumbered(inv.Expired, layout.ExpiredPrefix(src), o.Key, obj)
	case "packs":
		chain, id, err := layout.ParsePack(src, o.Key)
		obj.Checksum = compareChecksum(o.SHA256, id)
		return put(inv.Packs, Pack{chain, id}, obj, err)
	case "lists":
		id, err := layout.ParseHash(name)
		obj.Checksum = compareChecksum(o.SHA256, id)
		return put(inv.Lists, id, obj, err)
	case "damaged":
		id, err := layout.ParseHash(strings.TrimSuffix(name, ".json"))
		return put(inv.Damaged, id, obj, err) && strings.HasSuffix(name, ".json")
	case "keys":
		return inv.addKey(name, obj)
	case "marks":
		return inv.addMark(name, obj)
	case "receipts":
		return inv.addReceipt(o.Key, obj)
	}
	return false
}

func put[K comparable](m map[K]Object, k K, o Object, err error) bool {
	if err == nil {
		m[k] = o
	}
	return err == nil
}

func addNumbered(m map[uint64]Object, prefix, key string, o Object) bool {
	n, err := layout.ParseNumbered(prefix, key)
	return put(m, n, o, err)
}

func (inv *Inventory) addKey(name string, o Object) bool {
	id, file, ok := strings.Cut(name, "/")
	recipient, isJSON := strings.CutSuffix(file, ".json")
	_, err := layout.ParseHash(id)
	if !ok || !isJSON || err != nil || !isHex32(recipient) {
		return false
	}
	inv.Keys[Key{id, recipient}] = o
	return true
}

func (inv *Inventory) addMark(name string, o Object) bool {
	number, file, ok := strings.Cut(name, "/")
	id, isJSON := strings.CutSuffix(file, ".json")
	n, err := layout.ParseNumbered("", number+".json")
	if !ok || !isJSON || err != nil || !isHex32(id) {
		return false
	}
	inv.Marks[Mark{n, id}] = o
	return true
}

func (inv *Inventory) addReceipt(key string, o Object) bool {
	for _, where := range []string{layout.ReceiptHost, layout.ReceiptCloud} {
		if _, _, _, err := layout.ParseReceipt(inv.Source, where, key); err == nil {
			inv.Receipts[key] = o
			return true
		}
	}
	return false
}

// isHex32 accepts 32 lower-case hexadecimal digits, the form of recipient ids and mark ids.
func isHex32(s string) bool {
	_, err := layout.ParseChain(s)
	return err == nil
}

func compareChecksum(recorded []byte, name snapshot.Hash) Checksum {
	switch {
	case len(recorded) != len(name):
		return NotRecorded
	case bytes.Equal(recorded, name[:]):
		return Matches
	}
	return Differs
}

// Sequences returns the numbers of m, ascending.
func Sequences(m map[uint64]Object) []uint64 { return slices.Sorted(maps.Keys(m)) }

// Highest is the highest sequence number that the source has ever given to a snapshot, as far as the listing tells:
// manifests and records of removed ones; 0 if there is none.
func (inv *Inventory) Highest() uint64 {
	var n uint64
	for _, m := range []map[uint64]Object{inv.Manifests, inv.Expired} {
		for k := range m {
			n = max(n, k)
		}
	}
	return n
}

// Told is the highest number of a snapshot that anything in the listing tells of, be its manifest there or not: also
// announcements, marks and receipts; 0 if nothing does.
func (inv *Inventory) Told() uint64 {
	told := inv.Highest()
	for n := range inv.Condemned {
		told = max(told, n)
	}
	for m := range inv.Marks {
		told = max(told, m.Sequence)
	}
	for key := range inv.Receipts {
		for _, where := range []string{layout.ReceiptHost, layout.ReceiptCloud} {
			if _, _, n, err := layout.ParseReceipt(inv.Source, where, key); err == nil {
				told = max(told, n)
			}
		}
	}
	return told
}

// MarksOf returns the ids of the marks on one snapshot, ascending.
func (inv *Inventory) MarksOf(sequence uint64) []string {
	var out []string
	for m := range inv.Marks {
		if m.Sequence == sequence {
			out = append(out, m.ID)
		}
	}
	slices.Sort(out)
	return out
}

// ManifestKey and its neighbours give the object keys of what the inventory names.
func (inv *Inventory) ManifestKey(n uint64) string {
	return layout.ManifestKey(snapshot.ID{Source: inv.Source, Sequence: n})
}

// CondemnedKey is the object key of an announced removal.
func (inv *Inventory) CondemnedKey(n uint64) string {
	return layout.CondemnedKey(snapshot.ID{Source: inv.Source, Sequence: n})
}

// ExpiredKey is the object key of the record of a finished removal.
func (inv *Inventory) ExpiredKey(n uint64) string {
	return layout.ExpiredKey(snapshot.ID{Source: inv.Source, Sequence: n})
}

// PackKey is the object key of a pack.
func (inv *Inventory) PackKey(p Pack) string { return layout.PackKey(inv.Source, p.Chain, p.ID) }

// ListKey is the object key of a pack list.
func (inv *Inventory) ListKey(id snapshot.Hash) string {
	return layout.ListKey(inv.Source, id.String())
}

// KeyKey is the object key of a wrapped data key.
func (inv *Inventory) KeyKey(k Key) string { return layout.KeyKey(inv.Source, k.ID, k.Recipient) }

// MarkKey is the object key of a mark.
func (inv *Inventory) MarkKey(m Mark) string {
	return layout.MarkKey(snapshot.ID{Source: inv.Source, Sequence: m.Sequence}, m.ID)
}

// DamagedKey is the object key of the record of a damaged pack.
func (inv *Inventory) DamagedKey(pack snapshot.Hash) string {
	return layout.DamagedKey(inv.Source, pack)
}
