package keyring

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

var sampleContext = seal.Context{Repository: sampleRepository, Source: snapshot.Source{Host: "web", Name: "etc"}}

// wrap wraps the key for all recipients of the identities.
func wrap(t testing.TB, key seal.DataKey, ids ...*Identity) snapshot.Key {
	t.Helper()
	k := snapshot.Key{Key: key.ID(sampleContext.Repository).String()}
	for _, id := range ids {
		for _, r := range id.Recipients() {
			b, err := r.Wrap(t.Context(), key, sampleContext)
			if err != nil {
				t.Fatal(err)
			}
			k.Wrapped = append(k.Wrapped, snapshot.Wrapped{Type: r.Type, Recipient: r.Recipient, Wrapped: b})
		}
	}
	return k
}

func TestUnwrap(t *testing.T) {
	agent, offline, stranger := newIdentity(t), newIdentity(t), newIdentity(t)
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	key := seal.NewDataKey()
	quantum := parse(t, hybrid.String())
	k := wrap(t, key, agent, offline, quantum)
	for _, id := range []*Identity{agent, offline, quantum} {
		got, err := UnwrapKey(t.Context(), id, k, sampleContext)
		if err != nil || got != key {
			t.Fatal(err)
		}
	}
	if _, err := UnwrapKey(t.Context(), stranger, k, sampleContext); !errors.Is(err, ErrWrongIdentity) || !errors.Is(err, ErrNoIdentity) {
		t.Errorf("stranger: %v", err)
	}
	if _, err := UnwrapKey(t.Context(), parse(t, agent.Public()), k, sampleContext); !errors.Is(err, ErrNoIdentity) || errors.Is(err, ErrWrongIdentity) {
		t.Errorf("public half: %v", err)
	}
	if _, err := UnwrapKey(t.Context(), agent, snapshot.Key{Key: k.Key}, sampleContext); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("wrapped for nobody: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := UnwrapKey(ctx, agent, k, sampleContext); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestUnwrapExchanged gives an identity another key than the one that is named, and a damaged one.
func TestUnwrapExchanged(t *testing.T) {
	id := newIdentity(t)
	key := seal.NewDataKey()
	good, other := wrap(t, key, id), wrap(t, seal.NewDataKey(), id)

	exchanged := snapshot.Key{Key: good.Key, Wrapped: other.Wrapped}
	if _, err := UnwrapKey(t.Context(), id, exchanged, sampleContext); !errors.Is(err, ErrKeyID) {
		t.Errorf("exchanged: %v", err)
	}
	elsewhere := sampleContext
	elsewhere.Repository[0]++
	if _, err := UnwrapKey(t.Context(), id, good, elsewhere); !errors.Is(err, ErrKeyID) {
		t.Errorf("from another repository: %v", err)
	}
	damaged := snapshot.Key{Key: good.Key, Wrapped: []snapshot.Wrapped{good.Wrapped[0]}}
	damaged.Wrapped[0].Wrapped = bytes.Clone(good.Wrapped[0].Wrapped)
	damaged.Wrapped[0].Wrapped[len(damaged.Wrapped[0].Wrapped)-1] ^= 1
	if _, err := UnwrapKey(t.Context(), id, damaged, sampleContext); err == nil || errors.Is(err, ErrNoIdentity) {
		t.Errorf("damaged: %v", err)
	}
	for name, first := range map[string]snapshot.Wrapped{"exchanged": other.Wrapped[0], "damaged": damaged.Wrapped[0]} {
		k := snapshot.Key{Key: good.Key, Wrapped: append([]snapshot.Wrapped{first}, wrap(t, key, id).Wrapped...)}
		if got, err := UnwrapKey(t.Context(), id, k, sampleContext); err != nil || got != key {
			t.Errorf("%s entry before the right one: %v", name, err)
		}
	}
	// An entry under a wrong name opens all the same: names help only to find it.
	renamed := wrap(t, key, id)
	renamed.Wrapped[0].Recipient = newIdentity(t).Recipients()[0].Recipient
	if got, err := UnwrapKey(t.Context(), id, renamed, sampleContext); err != nil || got != key {
		t.Errorf("renamed: %v", err)
	}
}

// TestUnwrapLengths refuses what is not 32 bytes.
func TestUnwrapLengths(t *testing.T) {
	id := newIdentity(t)
	to, err := id.Recipients()[0].age()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 31, 33, 1 << 17} {
		var b bytes.Buffer
		w, err := age.Encrypt(&b, to)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		entry := []snapshot.Wrapped{{Type: TypeAge, Recipient: id.Recipients()[0].Recipient, Wrapped: b.Bytes()}}
		if _, err := id.Unwrap(t.Context(), entry, sampleContext); err == nil {
			t.Errorf("%d bytes pass", n)
		}
	}
}

func TestParseRecipient(t *testing.T) {
	r := newIdentity(t).Recipients()[0]
	got, err := ParseRecipient(r.Recipient)
	if err != nil || got != r {
		t.Fatal(got, err)
	}
	arn := "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	if r, err := ParseRecipient(arn); err != nil || r.Type != TypeKMS || r.Recipient != arn {
		t.Errorf("%+v, %v", r, err)
	}
	for _, bad := range []string{"arn:", "arn:aws:kms:eu-central-1:111122223333:alias/holdfast", arn + "\n", "arn:aws:s3:::bucket", arn + "/../x"} {
		if r, err := ParseRecipient(bad); err == nil {
			t.Errorf("%q passes as %+v", bad, r)
		}
	}
	for _, s := range []string{"", "age1", r.Recipient[1:], r.Recipient + "q", strings.ToUpper(r.Recipient), "ssh-ed25519 AAAA", "AGE-SECRET-KEY-1"} {
		if got, err := ParseRecipient(s); err == nil {
			t.Errorf("%q passes as %v", s, got)
		}
	}
	if _, err := (Recipient{Type: "aws-kms", Recipient: "x"}).Wrap(t.Context(), seal.DataKey{}, sampleContext); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
}

// TestRecipientID pins the name of a recipient in keys of objects.
func TestRecipientID(t *testing.T) {
	const want = "5dc402b5cd86163d6462c791c6b39b33" // SHA-256 of "age:age1example"
	if got := (Recipient{Type: TypeAge, Recipient: "age1example", Label: "no part of it"}).ID(); got != want {
		t.Fatal(got)
	}
}
