package layout_test

import (
	"testing"

	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func FuzzParseLog(f *testing.F) {
	src := snapshot.Source{Host: "h", Name: "s"}
	const stream = "000102030405060708090a0b0c0d0e0f"
	f.Add(layout.LogKey(src, layout.LogObject{Stream: stream, Epoch: 1}))
	f.Add(layout.LogKey(src, layout.LogObject{Stream: stream, Epoch: 1, First: 5, Last: 5}))
	f.Add(layout.LogKey(src, layout.LogObject{Stream: stream, Epoch: 1, First: 5, Last: 9, Joined: true}))
	f.Add(layout.DamagedLogKey(src, layout.LogObject{Stream: stream, Epoch: 1, First: 5, Last: 9, Joined: true}))
	f.Add(layout.ExpiredLogKey(src, stream, 1, 9))
	f.Fuzz(func(t *testing.T, key string) {
		if o, err := layout.ParseLog(src, key); err == nil && layout.LogKey(src, o) != key {
			t.Errorf("%q became %q", key, layout.LogKey(src, o))
		}
		if o, err := layout.ParseDamagedLog(src, key); err == nil && layout.DamagedLogKey(src, o) != key {
			t.Errorf("%q became %q", key, layout.DamagedLogKey(src, o))
		}
		if s, e, l, err := layout.ParseCut(layout.ExpiredLogPrefix(src), key); err == nil && layout.ExpiredLogKey(src, s, e, l) != key {
			t.Errorf("%q became %q", key, layout.ExpiredLogKey(src, s, e, l))
		}
	})
}
