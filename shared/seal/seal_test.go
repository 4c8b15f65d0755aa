package seal

import (
	"bytes"
	"testing"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func sampleContext() Context {
	return Context{Repository: snapshot.RepositoryID{1, 2}, Source: snapshot.Source{Host: "web", Name: "etc"}, Chain: snapshot.ChainID{3, 4}}
}

func TestSealRoundTrip(t *testing.T) {
	keys, codec := NewKeys(DataKey{7}, sampleContext()), NewCodec()
	plain := bytes.Repeat([]byte("some content "), 10_000)
	id := keys.ChunkID(snapshot.Content, plain)
	pack := keys.Pack([32]byte{9})
	encoded := codec.Compress(nil, plain)
	sealed := pack.Seal([]byte("before"), 40, snapshot.Content, id, encoded)[6:]
	if len(sealed) != len(encoded)+Overhead || len(sealed) >= len(plain) {
		t.Fatalf("%d bytes plain, %d encoded, %d sealed", len(plain), len(encoded), len(sealed))
	}
	opened, err := pack.Open(nil, 40, snapshot.Content, id, sealed)
	if err != nil {
		t.Fatal(err)
	}
	got, err := codec.Decompress(nil, opened, len(plain))
	if err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("%v", err)
	}
}
