package layout_test

import (
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

var source = snapshot.Source{Host: "governance-1", Name: "etc"}

func TestNumberedRoundTrip(t *testing.T) {
	for _, n := range []uint64{1, 42, 9_999_999_999} {
		id := snapshot.ID{Source: source, Sequence: n}
		for prefix, key := range map[string]string{
			layout.ManifestPrefix(source):  layout.ManifestKey(id),
			layout.CondemnedPrefix(source): layout.CondemnedKey(id),
			layout.ExpiredPrefix(source):   layout.ExpiredKey(id),
			layout.AccessPrefix:            layout.AccessKey(n),
		} {
			got, err := layout.ParseNumbered(prefix, key)
			if err != nil || got != n {
				t.Errorf("ParseNumbered(%q, %q) = %d, %v; want %d", prefix, key, got, err, n)
			}
		}
	}
	for _, bad := range []string{"0000000000.json", "1.json", "00000000001.json", "000000000x.json", "0000000001", "+000000001.json"} {
		if _, err := layout.ParseNumbered("p/", "p/"+bad); err == nil {
			t.Errorf("ParseNumbered accepts %q", bad)
		}
	}
}

func TestPackRoundTrip(t *testing.T) {
	chain, pack := snapshot.ChainID{1, 2}, snapshot.Hash{3, 4}
	c, p, err := layout.ParsePack(source, layout.PackKey(source, chain, pack))
	if err != nil || c != chain || p != pack {
		t.Fatalf("ParsePack = %v, %v, %v", c, p, err)
	}
	if _, _, err := layout.ParsePack(source, "v1/other/etc/packs/x/y"); err == nil {
		t.Error("ParsePack accepts another source's key")
	}
}

func TestReceiptRoundTrip(t *testing.T) {
	at := time.Date(2026, 11, 20, 12, 0, 0, 5, time.UTC)
	id := snapshot.ID{Source: source, Sequence: 7}
	key := layout.ReceiptKey(id, layout.ReceiptHost, at, "content")
	got, level, n, err := layout.ParseReceipt(source, layout.ReceiptHost, key)
	if err != nil || !got.Equal(at) || level != "content" || n != 7 {
		t.Fatalf("ParseReceipt(%q) = %v, %q, %d, %v", key, got, level, n, err)
	}
}

func TestHost(t *testing.T) {
	for key, want := range map[string]string{
		layout.RepositoryKey:       "*",
		layout.AccessKey(3):        "*",
		"v1/web-1/etc/snapshots/x": "web-1",
	} {
		if got, err := layout.Host(key); err != nil || got != want {
			t.Errorf("Host(%q) = %q, %v; want %q", key, got, err, want)
		}
	}
	if _, err := layout.Host("v2/x"); err == nil {
		t.Error("Host accepts a key of another version")
	}
}
