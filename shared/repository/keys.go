package repository

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// KeyDocument is the payload of a key object: the data key of a chain, sealed for one recipient.
type KeyDocument struct {
	Key   string `json:"key"` // key id, hex
	Chain string `json:"chain"`
	snapshot.Wrapped
}

// RecipientID names a recipient in keys of objects: 32 hex digits.
func RecipientID(kind, recipient string) string {
	sum := sha256.Sum256([]byte(kind + ":" + recipient))
	return hex.EncodeToString(sum[:16])
}

// keyObjects reads all key objects of one data key.
func (r *Repository) keyObjects(ctx context.Context, src snapshot.Source, keyID string) (snapshot.Key, error) {
	out := snapshot.Key{Key: keyID}
	prefix := layout.KeyPrefix(src) + keyID + "/"
	var keys []string
	err := r.store.List(ctx, prefix, func(o objstore.Info) error {
		keys = append(keys, o.Key)
		return nil
	})
	if err != nil {
		return out, fmt.Errorf("list %s: %w", prefix, err)
	}
	for _, key := range keys {
		var doc KeyDocument
		if _, err := r.Document(ctx, key, &doc); err != nil || doc.Key != keyID {
			continue // verify names it; another entry may open the key
		}
		out.Wrapped = append(out.Wrapped, doc.Wrapped)
	}
	return out, nil
}

// ShareKeys seals the data keys of all chains and all logs in the repository for rec, where that has not been done; the identity
// must open them. It returns how many key objects it wrote.
func (r *Repository) ShareKeys(ctx context.Context, rec keyring.Recipient) (int, error) {
	sources, err := r.Sources(ctx)
	if err != nil {
		return 0, err
	}
	written := 0
	for _, src := range sources {
		manifests, err := r.Manifests(ctx, src)
		if err != nil {
			return written, err
		}
		done := map[string]bool{}
		for _, m := range manifests {
			if len(m.Keys) == 0 || done[m.Keys[0].Key] {
				continue
			}
			done[m.Keys[0].Key] = true
			n, err := r.shareKey(ctx, src, m.Keys[0], m.Chain, rec)
			if err != nil {
				return written, fmt.Errorf("share the key of %s with %s: %w", m.ID(), rec.Recipient, err)
			}
			written += n
		}
		n, err := r.shareLogs(ctx, src, rec)
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

func (r *Repository) shareKey(ctx context.Context, src snapshot.Source, k snapshot.Key, chainID string, rec keyring.Recipient) (int, error) {
	object := layout.KeyKey(src, k.Key, RecipientID(rec.Type, rec.Recipient))
	if _, err := r.store.Stat(ctx, object); err == nil {
		return 0, nil
	}
	chain, err := layout.ParseChain(chainID)
	if err != nil {
		return 0, fmt.Errorf("chain: %w", err)
	}
	about := seal.Context{Repository: r.id, Source: src, Chain: chain}
	key, err := r.UnwrapKey(ctx, k, about)
	if err != nil {
		return 0, err
	}
	wrapped, err := r.identity.Wrap(ctx, rec, key, about)
	if err != nil {
		return 0, err
	}
	doc := KeyDocument{Key: k.Key, Chain: chainID, Wrapped: snapshot.Wrapped{Type: rec.Type, Recipient: rec.Recipient, Wrapped: wrapped}}
	return 1, r.PutDocument(ctx, object, doc)
}

// shareLogs does for the epochs of a source's logs what ShareKeys does for chains.
func (r *Repository) shareLogs(ctx context.Context, src snapshot.Source, rec keyring.Recipient) (written int, err error) {
	heads, err := r.LogHeads(ctx, src)
	if err != nil {
		return 0, err
	}
	for _, h := range heads {
		n, err := r.shareKey(ctx, src, h.Keys[0], h.Stream, rec)
		if err != nil {
			return written, fmt.Errorf("share the key of epoch %d of the log of %s with %s: %w", h.Epoch, src, rec.Recipient, err)
		}
		written += n
	}
	return written, nil
}
