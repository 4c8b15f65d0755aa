package overlay_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/objstore/overlay"
)

// TestStore reads documents over what is under them, in the order of keys, each once.
func TestStore(t *testing.T) {
	under := mem.New()
	for _, key := range []string{"b", "d", "d/e"} {
		if err := under.Put(t.Context(), key, objstore.Bytes([]byte("under "+key))); err != nil {
			t.Fatal(err)
		}
	}
	documents := map[string][]byte{"a": []byte("over a"), "d": []byte("over d"), "z": []byte("over z")}
	for _, c := range []struct {
		store      overlay.Store
		list, read string
	}{
		{overlay.Store{Under: under, Documents: documents}, "a b d d/e z", "over a,under b,over d,under d/e,over z"},
		{overlay.Store{Documents: documents}, "a d z", "over a,over d,over z"},
		{overlay.Store{Under: under}, "b d d/e", "under b,under d,under d/e"},
	} {
		var keys, texts []string
		err := c.store.List(t.Context(), "", func(i objstore.Info) error {
			b, err := objstore.ReadAll(t.Context(), c.store, i.Key, 100)
			if err != nil {
				return err
			}
			st, err := c.store.Stat(t.Context(), i.Key)
			if err == nil && (st.Size != int64(len(b)) || i.Size != st.Size) {
				t.Errorf("%s has %d bytes; the listing says %d, stat %d", i.Key, len(b), i.Size, st.Size)
			}
			keys, texts = append(keys, i.Key), append(texts, string(b))
			return err
		})
		if err != nil || strings.Join(keys, " ") != c.list || strings.Join(texts, ",") != c.read {
			t.Errorf("%q, %q, %v", keys, texts, err)
		}
		if err := c.store.Put(t.Context(), "new", objstore.Bytes(nil)); !errors.Is(err, objstore.ErrDenied) {
			t.Errorf("put: %v", err)
		}
		if err := c.store.Delete(t.Context(), "a"); !errors.Is(err, objstore.ErrDenied) {
			t.Errorf("delete: %v", err)
		}
		if _, err := c.store.Get(t.Context(), "none", 0, -1); !errors.Is(err, objstore.ErrNotExist) {
			t.Errorf("get: %v", err)
		}
	}
}
