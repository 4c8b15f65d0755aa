package log

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Opened is what a later process of the same host needs to go on with an epoch: [Reopen]. It holds the epoch's data key.
type Opened struct {
	Stream string
	Epoch  uint64
	Time   time.Time // as its head says
	Key    seal.DataKey
	For    []string // the recipients for whom the key was sealed
}

// Opened is for who goes on with the epoch in another process.
func (w *Writer) Opened() Opened {
	o := Opened{Stream: w.head.Stream, Epoch: w.head.Epoch, Time: w.head.Opened, Key: w.key}
	for _, wrapped := range w.head.Keys[0].Wrapped {
		o.For = append(o.For, wrapped.Recipient)
	}
	return o
}

// ErrRecipients says that an epoch's key is sealed for others than those of today: another epoch must be opened.
var ErrRecipients = errors.New("the key of the epoch is sealed for other recipients than those of today")

// Reopen goes on with an epoch that a process which has ended has opened, and of which all that it ever tried to put is
// known: o.Continues is the place of its last record. Nothing is put before the first record; whether somebody else has
// opened a higher epoch is looked at with one listing.
//
// Where a put may be on its way still that the process had begun, the number of its record is taken, and another epoch must be
// opened by [Create]. Errors: ErrSuperseded, ErrRecipients, those of the store.
func Reopen(ctx context.Context, repo *repository.Repository, src snapshot.Source, o Options, e Opened) (*Writer, error) {
	fail := func(err error) (*Writer, error) {
		return nil, fmt.Errorf("go on with epoch %d of the log of %s: %w", e.Epoch, src, err)
	}
	if c := o.Continues; c == nil || c.Stream != e.Stream || c.Epoch != e.Epoch || c.Sequence == 0 || c.Record == "" {
		return fail(errors.New("the place of its last record is not known"))
	}
	recipients, err := repo.Recipients()
	if err != nil {
		return fail(err)
	}
	if !sealedFor(e.For, recipients) {
		return fail(ErrRecipients)
	}
	o.Stream, o.After, o.Opened = e.Stream, e.Epoch-1, e.Time
	w := &Writer{repo: repo, src: src, opts: o}
	if err := w.prepareHead(); err != nil {
		return fail(err)
	}
	stream, err := snapshot.ParseChainID(e.Stream)
	if err != nil {
		return fail(err)
	}
	w.key, w.keys = e.Key, seal.NewKeys(e.Key, seal.Context{Repository: repo.ID(), Source: src, Chain: stream})
	if err := w.Superseded(ctx); err != nil {
		return fail(err)
	}
	return w, nil
}

// sealedFor reports whether a key that is sealed for some is so for all of today and for nobody else. What a service did not
// seal when it was asked is missing in the epoch's head, and is none.
func sealedFor(some []string, today []keyring.Recipient) bool {
	found := 0
	for _, r := range today {
		has := false
		for _, one := range some {
			has = has || one == r.Recipient
		}
		if !has && r.Type != keyring.TypeKMS {
			return false
		}
		if has {
			found++
		}
	}
	return found == len(some)
}
