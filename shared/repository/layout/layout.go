// Package layout names the objects of a repository, as docs/format.md, "Keys of objects", specifies.
// It is pure: strings in, strings out.
package layout

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Prefix begins every key.
const Prefix = "v1/"

// RepositoryKey is the key of the repository's own document.
const RepositoryKey = Prefix + "repository.json"

// AccessPrefix begins the keys of access documents.
const AccessPrefix = Prefix + "access/"

// CopyKey is the key of the object that says of a place that it is a copy: what is in it has arrived there later than it
// was made. It lies where whoever opens a repository lists anyway.
const CopyKey = AccessPrefix + "copy"

// The places of receipts: who wrote them.
const (
	ReceiptHost  = "host"
	ReceiptCloud = "cloud"
)

// receiptTime is the layout of times in keys of receipts.
const receiptTime = "20060102T150405.000000000Z"

func sequence(n uint64) string { return fmt.Sprintf("%010d", n) }

// SourcePrefix begins the keys of all objects of a source; it ends in a slash.
func SourcePrefix(s snapshot.Source) string { return Prefix + s.Host + "/" + s.Name + "/" }

// ManifestPrefix begins the keys of a source's manifests.
func ManifestPrefix(s snapshot.Source) string { return SourcePrefix(s) + "snapshots/" }

// ManifestKey is the key of a snapshot's manifest.
func ManifestKey(id snapshot.ID) string {
	return ManifestPrefix(id.Source) + sequence(id.Sequence) + ".json"
}

// PackPrefix begins the keys of all packs of a source.
func PackPrefix(s snapshot.Source) string { return SourcePrefix(s) + "packs/" }

// PackKey is the key of a pack.
func PackKey(s snapshot.Source, chain snapshot.ChainID, pack snapshot.Hash) string {
	return PackPrefix(s) + chain.String() + "/" + pack.String()
}

// ListPrefix begins the keys of a source's pack lists.
func ListPrefix(s snapshot.Source) string { return SourcePrefix(s) + "lists/" }

// ListKey is the key of a pack list; list is its name in hex.
func ListKey(s snapshot.Source, list string) string { return ListPrefix(s) + list }

// KeyPrefix begins the keys of a source's key objects.
func KeyPrefix(s snapshot.Source) string { return SourcePrefix(s) + "keys/" }

// KeyKey is the key of one wrapped data key; keyID is in hex, recipientID has 32 hex digits.
func KeyKey(s snapshot.Source, keyID, recipientID string) string {
	return KeyPrefix(s) + keyID + "/" + recipientID + ".json"
}

// AccessKey is the key of an access document.
func AccessKey(n uint64) string { return AccessPrefix + sequence(n) + ".json" }

// CondemnedPrefix begins the keys of announced removals.
func CondemnedPrefix(s snapshot.Source) string { return SourcePrefix(s) + "condemned/" }

// CondemnedKey is the key that announces a snapshot's removal.
func CondemnedKey(id snapshot.ID) string {
	return CondemnedPrefix(id.Source) + sequence(id.Sequence) + ".json"
}

// ExpiredPrefix begins the keys of records of removed snapshots.
func ExpiredPrefix(s snapshot.Source) string { return SourcePrefix(s) + "expired/" }

// ExpiredKey is the key of the record that a snapshot was removed by retention.
func ExpiredKey(id snapshot.ID) string {
	return ExpiredPrefix(id.Source) + sequence(id.Sequence) + ".json"
}

// MarkPrefix begins the keys of a source's marks.
func MarkPrefix(s snapshot.Source) string { return SourcePrefix(s) + "marks/" }

// MarkKey is the key of a mark on a snapshot; mark has 32 hex digits.
func MarkKey(id snapshot.ID, mark string) string {
	return MarkPrefix(id.Source) + sequence(id.Sequence) + "/" + mark + ".json"
}

// DamagedPrefix begins the keys of a source's records of damaged packs.
func DamagedPrefix(s snapshot.Source) string { return SourcePrefix(s) + "damaged/" }

// DamagedKey is the key of the record that a pack failed a check.
func DamagedKey(s snapshot.Source, pack snapshot.Hash) string {
	return DamagedPrefix(s) + pack.String() + ".json"
}

// ReceiptPrefix begins the keys of a source's receipts; where is ReceiptHost or ReceiptCloud.
func ReceiptPrefix(s snapshot.Source, where string) string {
	return SourcePrefix(s) + "receipts/" + where + "/"
}

// ReceiptKey is the key of a receipt.
func ReceiptKey(id snapshot.ID, where string, at time.Time, level string) string {
	return ReceiptPrefix(id.Source, where) + at.UTC().Format(receiptTime) + "-" + level + "-" + sequence(id.Sequence) + ".json"
}

// Host returns the host whose signer may write the document under key: "*" for documents of the whole repository.
func Host(key string) (string, error) {
	rest, ok := strings.CutPrefix(key, Prefix)
	if !ok {
		return "", fmt.Errorf("key %q does not begin with %q", key, Prefix)
	}
	if key == RepositoryKey || strings.HasPrefix(key, AccessPrefix) {
		return "*", nil
	}
	host, _, ok := strings.Cut(rest, "/")
	if !ok || host == "" {
		return "", fmt.Errorf("key %q names no host", key)
	}
	return host, nil
}

// ParseNumbered returns the sequence number of a key of the form <prefix><ten digits>.json.
func ParseNumbered(prefix, key string) (uint64, error) {
	name, ok := strings.CutPrefix(key, prefix)
	if !ok {
		return 0, fmt.Errorf("key %q is not below %q", key, prefix)
	}
	digits, ok := strings.CutSuffix(name, ".json")
	n, err := parseSequence(digits)
	if !ok || err != nil {
		return 0, fmt.Errorf("key %q: want ten digits and .json after %q", key, prefix)
	}
	return n, nil
}

func parseSequence(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || len(s) != 10 || n == 0 || sequence(n) != s {
		return 0, fmt.Errorf("sequence %q: want ten digits, from 0000000001", s)
	}
	return n, nil
}

// ParsePack returns the chain and the pack that the key of a pack names.
func ParsePack(s snapshot.Source, key string) (snapshot.ChainID, snapshot.Hash, error) {
	var chain snapshot.ChainID
	var pack snapshot.Hash
	rest, ok := strings.CutPrefix(key, PackPrefix(s))
	c, p, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 || unhex(chain[:], c) != nil || unhex(pack[:], p) != nil {
		return chain, pack, fmt.Errorf("key %q is not that of a pack of %s", key, s)
	}
	return chain, pack, nil
}

// ParseHash parses 64 lower-case hexadecimal digits.
func ParseHash(s string) (snapshot.Hash, error) {
	var h snapshot.Hash
	if err := unhex(h[:], s); err != nil {
		return h, err
	}
	return h, nil
}

// ParseChain parses 32 lower-case hexadecimal digits.
func ParseChain(s string) (snapshot.ChainID, error) {
	var c snapshot.ChainID
	if err := unhex(c[:], s); err != nil {
		return c, err
	}
	return c, nil
}

// ParseRepository parses 32 lower-case hexadecimal digits.
func ParseRepository(s string) (snapshot.RepositoryID, error) {
	var id snapshot.RepositoryID
	if err := unhex(id[:], s); err != nil {
		return id, err
	}
	return id, nil
}

func unhex(dst []byte, s string) error {
	if len(s) != 2*len(dst) || strings.ToLower(s) != s {
		return fmt.Errorf("%q: want %d lower-case hexadecimal digits", s, 2*len(dst))
	}
	if _, err := hex.Decode(dst, []byte(s)); err != nil {
		return fmt.Errorf("%q: want hexadecimal digits", s)
	}
	return nil
}

// ParseReceipt returns what the key of a receipt says.
func ParseReceipt(s snapshot.Source, where, key string) (at time.Time, level string, n uint64, err error) {
	bad := fmt.Errorf("key %q is not that of a receipt of %s", key, s)
	rest, ok := strings.CutPrefix(key, ReceiptPrefix(s, where))
	name, ok2 := strings.CutSuffix(rest, ".json")
	parts := strings.Split(name, "-")
	if !ok || !ok2 || len(parts) != 3 {
		return at, "", 0, bad
	}
	at, err = time.Parse(receiptTime, parts[0])
	if err != nil {
		return at, "", 0, bad
	}
	n, err = parseSequence(parts[2])
	if err != nil {
		return at, "", 0, bad
	}
	return at, parts[1], n, nil
}
