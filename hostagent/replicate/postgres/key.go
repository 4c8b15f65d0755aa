package postgres

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/seal"
)

// keyFile holds the data key of the epoch that processes of wal-push write, one after the other. Who reads it learns no more
// than the WAL that was on this host at the time.
const keyFile = "follow.key"

// mostEpoch is for how long one epoch goes on over processes: then another begins, with a key of its own.
const mostEpoch = 24 * time.Hour

// epochKey is what goes on with an epoch in another process.
type epochKey struct {
	Stream string    `json:"stream"`
	Epoch  uint64    `json:"epoch"`
	Opened time.Time `json:"opened"` // as its head says
	Begun  time.Time `json:"begun"`  // by this host's clock
	Key    []byte    `json:"key"`
	For    []string  `json:"for"` // recipients
}

// saveKey keeps an epoch's key for the next process. It replaces the file in one step: a crash leaves the old one, which fits
// no other epoch, or the new one.
func saveKey(dir string, o log.Opened, now time.Time) error {
	b, err := json.Marshal(epochKey{o.Stream, o.Epoch, o.Time, now.UTC(), o.Key[:], o.For})
	if err != nil {
		return fmt.Errorf("encode the key of the epoch: %w", err)
	}
	path := filepath.Join(dir, keyFile)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("keep the key of the epoch: %w", err)
	}
	_, err = f.Write(append(b, keySum(b)...))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("keep the key of the epoch: %w", err)
	}
	return nil
}

// loadKey returns the key of an epoch that may go on; false: there is none, and another epoch begins. A file that is damaged
// counts as none: what was sealed with a wrong key nobody could open.
func loadKey(dir, stream string, epoch uint64, now time.Time) (o log.Opened, ok bool) {
	b, err := os.ReadFile(filepath.Join(dir, keyFile))
	if err != nil {
		return o, false
	}
	var k epochKey
	text, sum, _ := bytes.Cut(b, []byte("\n"))
	if string(sum) != string(keySum(text)[1:]) || json.Unmarshal(text, &k) != nil || len(k.Key) != len(seal.DataKey{}) {
		return o, false
	}
	if age := now.Sub(k.Begun); k.Stream != stream || k.Epoch != epoch || age < 0 || age >= mostEpoch {
		return o, false
	}
	return log.Opened{Stream: k.Stream, Epoch: k.Epoch, Time: k.Opened, Key: seal.DataKey(k.Key), For: k.For}, true
}

// forgetKey removes the key that is kept. One that can't be removed fits no epoch that is written.
func forgetKey(dir string) { _ = os.Remove(filepath.Join(dir, keyFile)) }

func keySum(text []byte) []byte {
	sum := sha256.Sum256(text)
	return []byte("\n" + hex.EncodeToString(sum[:]))
}
