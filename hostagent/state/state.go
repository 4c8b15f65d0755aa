// Package state is what one host remembers of its sources between runs, beside what package repository keeps in the same
// directory: how the last backup ended, how long the last restore took, when an identity was last proven, which
// retention is in force. Use [Open].
//
// Everything in it can be lost: then it is not known, and status says so. Files are replaced in one step, so a crash
// leaves the old or the new, never half.
package state

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/durable"
	"github.com/btcdecoded/holdfast/shared/compliance"
	"github.com/btcdecoded/holdfast/shared/retention"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Dir is the state directory of one repository. Its methods are safe for concurrent use, also by several processes.
type Dir struct{ path string }

// Open names the directory below root for a repository; nothing is made yet.
func Open(root string, repo snapshot.RepositoryID) *Dir {
	return &Dir{path: filepath.Join(root, repo.String())}
}

const (
	runFile       = "run.json"
	restoreFile   = "restore.json"
	retentionFile = "retention.json"
	keyFile       = "key-check.json"
	placeFile     = "place.json"
	accessFile    = "access.json"
)

// LastRun returns how the last backup of a source on this host ended; false if that is not known.
func (d *Dir) LastRun(src snapshot.Source) (run compliance.Run, ok bool) {
	return run, d.load(src, runFile, &run)
}

// SetLastRun remembers how a backup ended.
func (d *Dir) SetLastRun(src snapshot.Source, run compliance.Run) error {
	return d.save(src, runFile, run)
}

// LastRestore returns the last restore of a whole source that was measured on this host; false if there is none.
func (d *Dir) LastRestore(src snapshot.Source) (r compliance.Restore, ok bool) {
	return r, d.load(src, restoreFile, &r)
}

// SetLastRestore remembers a measured restore.
func (d *Dir) SetLastRestore(src snapshot.Source, r compliance.Restore) error {
	return d.save(src, restoreFile, r)
}

// Retention returns the rules that are in force for a source; the zero value if none were recorded. A record that can't
// be read counts as none: it costs the waiting time of shortened rules, see [retention.Record].
func (d *Dir) Retention(src snapshot.Source) retention.Record {
	var r retention.Record
	if !d.load(src, retentionFile, &r) {
		return retention.Record{}
	}
	return r
}

// SetRetention remembers the rules that are in force. It is durable when it returns.
func (d *Dir) SetRetention(src snapshot.Source, r retention.Record) error {
	return d.save(src, retentionFile, r)
}

// keyCheck is a proof that an identity opens everything.
type keyCheck struct {
	Time time.Time `json:"time"`
}

// KeyProven returns when an identity was last proven to open all chains; zero if never.
func (d *Dir) KeyProven() time.Time {
	var k keyCheck
	if !d.load(snapshot.Source{}, keyFile, &k) {
		return time.Time{}
	}
	return k.Time
}

// SetKeyProven remembers that an identity was proven.
func (d *Dir) SetKeyProven(at time.Time) error {
	return d.save(snapshot.Source{}, keyFile, keyCheck{Time: at.UTC()})
}

// place is where this host backs up to.
type place struct {
	Address string `json:"address"`
}

// Place returns the address of the repository to which this host last backed up; empty if that is not known. Another
// place is a copy, which may lag: what was seen here is no measure for it.
func (d *Dir) Place() string {
	var p place
	if !d.load(snapshot.Source{}, placeFile, &p) {
		return ""
	}
	return p.Address
}

// SetPlace remembers where this host backs up to.
func (d *Dir) SetPlace(address string) error {
	if d.Place() == address {
		return nil
	}
	return d.save(snapshot.Source{}, placeFile, place{Address: address})
}

// access says which access document was the newest at each address of the repository.
type access struct {
	Places map[string]uint64 `json:"places"`
}

// Access returns the highest number of an access document that this host has seen at an address; 0 if none is known. A
// copy of the repository has an address of its own: it may lag.
func (d *Dir) Access(address string) uint64 {
	var a access
	if !d.load(snapshot.Source{}, accessFile, &a) {
		return 0
	}
	return a.Places[address]
}

// SetAccess remembers the number of an access document, if it is higher than what is known. Of two processes that do it
// at the same time one may be forgotten, until the repository is opened again.
func (d *Dir) SetAccess(address string, number uint64) error {
	var a access
	d.load(snapshot.Source{}, accessFile, &a)
	if a.Places[address] >= number {
		return nil
	}
	if a.Places == nil {
		a.Places = map[string]uint64{}
	}
	a.Places[address] = number
	return d.save(snapshot.Source{}, accessFile, a)
}

// dir is the directory of a source, or that of the repository for the zero source.
func (d *Dir) dir(src snapshot.Source) string { return filepath.Join(d.path, src.Host, src.Name) }

func (d *Dir) load(src snapshot.Source, name string, v any) bool {
	b, err := os.ReadFile(filepath.Join(d.dir(src), name))
	return err == nil && json.Unmarshal(b, v) == nil
}

func (d *Dir) save(src snapshot.Source, name string, v any) (err error) {
	if src != (snapshot.Source{}) {
		if err := src.Check(); err != nil {
			return err
		}
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	if err := durable.Directories(d.dir(src)); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	if err := durable.Replace(filepath.Join(d.dir(src), name), append(b, '\n')); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}
