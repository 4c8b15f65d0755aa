package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

func sampleKey() (k DataKey) {
	for i := range k {
		k[i] = byte(i + 1)
	}
	return k
}

func sampleContext() Context {
	return Context{Repository: snapshot.RepositoryID{1, 2}, Source: snapshot.Source{Host: "web", Name: "etc"}, Chain: snapshot.ChainID{3, 4}}
}

// specHKDF is RFC 5869 written down once more, so that the test does not share a mistake with what it tests.
func specHKDF(secret, salt []byte, info string, n int) (out []byte) {
	mac := func(key []byte, parts ...[]byte) []byte {
		h := hmac.New(sha256.New, key)
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	prk := mac(salt, secret)
	var last []byte
	for i := byte(1); len(out) < n; i++ {
		last = mac(prk, last, []byte(info), []byte{i})
		out = append(out, last...)
	}
	return out[:n]
}

// TestSpecification computes everything as docs/format.md says, by other means.
func TestSpecification(t *testing.T) {
	dk, c := sampleKey(), sampleContext()
	keys := NewKeys(dk, c)
	content := []byte("the content of a chunk")

	if id := dk.ID(c.Repository); !bytes.Equal(id[:], specHKDF(dk[:], c.Repository[:], "holdfast v1 key id", 32)) {
		t.Error("key id")
	}
	mac := hmac.New(sha256.New, specHKDF(dk[:], nil, "holdfast v1 chunk id", 32))
	mac.Write(append([]byte{'d'}, content...))
	id := keys.ChunkID(snapshot.Content, content)
	if !bytes.Equal(id[:], mac.Sum(nil)) {
		t.Error("chunk id")
	}
	mac = hmac.New(sha256.New, specHKDF(dk[:], nil, "holdfast v1 file id", 32))
	mac.Write(content)
	if file := keys.FileID(content); !bytes.Equal(file[:], mac.Sum(nil)[:16]) {
		t.Error("file id")
	}
	table := specHKDF(dk[:], nil, "holdfast v1 gear", 2048)
	for i, v := range keys.Gear() {
		if v != binary.BigEndian.Uint64(table[8*i:]) {
			t.Fatal("gear table")
		}
	}

	salt := [32]byte{9, 31: 8}
	block, err := aes.NewCipher(specHKDF(dk[:], salt[:], "holdfast v1 pack", 32))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	const offset = 0x01020304
	aad := append([]byte("holdfast v1 chunk\x00"), c.Repository[:]...)
	aad = append(aad, "\x07web/etc"...)
	aad = append(append(append(aad, c.Chain[:]...), 'd'), id[:]...)
	want := aead.Seal(nil, []byte{0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, append([]byte{0}, content...), aad)
	if got := keys.Pack(salt).Seal(nil, offset, snapshot.Content, id, append([]byte{0}, content...)); !bytes.Equal(got, want) {
		t.Error("sealed chunk")
	}
}

// TestVectors pins the values, for readers in other languages as much as for later versions of this one.
func TestVectors(t *testing.T) {
	dk, c := sampleKey(), sampleContext()
	keys := NewKeys(dk, c)
	id := keys.ChunkID(snapshot.Content, []byte("abc"))
	got := map[string]string{
		"key id":   dk.ID(c.Repository).String(),
		"chunk id": id.String(),
		"tree id":  keys.ChunkID(snapshot.Tree, []byte("abc")).String(),
		"file id":  fmt.Sprintf("%x", keys.FileID([]byte("abc"))),
		"gear":     fmt.Sprintf("%016x %016x", keys.Gear()[0], keys.Gear()[255]),
		"sealed":   fmt.Sprintf("%x", keys.Pack([32]byte{5}).Seal(nil, 40, snapshot.Content, id, []byte("\x00abc"))),
	}
	want := map[string]string{
		"chunk id": "d7b17a32f960a59ff603f71b23fd5dc6f23429a5f6660e8fd8900c20586c3345",
		"file id":  "d2761cc01578c3c2cef7ed59d7ba3f4d",
		"gear":     "f75d308fdef788c0 a875b1e6cdbb67af",
		"key id":   "7af300a9d9f3641c69ca2248390ac0aea9d366786a0eb49259257e4dd1d81268",
		"sealed":   "b9c4ea4f971a270b0d13d558fef1726fd451e687",
		"tree id":  "d12c75efe6787312ee601abccf70345e8b9ba6dfacd2cb2170ab2ae130b61699",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
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
	opened, err := pack.Open([]byte("before"), 40, snapshot.Content, id, sealed)
	if err != nil || !bytes.HasPrefix(opened, []byte("before")) {
		t.Fatal(err)
	}
	got, err := codec.Decompress(nil, opened[6:], len(plain))
	if err != nil || !bytes.Equal(got, plain) {
		t.Fatal(err)
	}
}

// TestOpenRefuses opens a chunk with everything else exchanged, one by one, and with every bit of it flipped.
func TestOpenRefuses(t *testing.T) {
	dk, c, salt := sampleKey(), sampleContext(), [32]byte{1}
	keys := NewKeys(dk, c)
	encoded := []byte("\x00some content")
	id := keys.ChunkID(snapshot.Content, encoded[1:])
	sealed := keys.Pack(salt).Seal(nil, 40, snapshot.Content, id, encoded)
	open := func(dk DataKey, c Context, salt [32]byte, offset uint32, kind snapshot.Kind, id snapshot.Hash, sealed []byte) error {
		_, err := NewKeys(dk, c).Pack(salt).Open(nil, offset, kind, id, sealed)
		return err
	}
	if err := open(dk, c, salt, 40, snapshot.Content, id, sealed); err != nil {
		t.Fatal(err)
	}
	repository, source, boundary, chain := c, c, c, c
	repository.Repository[15]++
	source.Source.Name = "etd"
	boundary.Source = snapshot.Source{Host: "we", Name: "b/etc"}
	chain.Chain[15]++
	for name, err := range map[string]error{
		"data key":   open(DataKey{1}, c, salt, 40, snapshot.Content, id, sealed),
		"repository": open(dk, repository, salt, 40, snapshot.Content, id, sealed),
		"source":     open(dk, source, salt, 40, snapshot.Content, id, sealed),
		"boundary":   open(dk, boundary, salt, 40, snapshot.Content, id, sealed),
		"chain":      open(dk, chain, salt, 40, snapshot.Content, id, sealed),
		"salt":       open(dk, c, [32]byte{2}, 40, snapshot.Content, id, sealed),
		"offset":     open(dk, c, salt, 41, snapshot.Content, id, sealed),
		"kind":       open(dk, c, salt, 40, snapshot.Tree, id, sealed),
		"id":         open(dk, c, salt, 40, snapshot.Content, snapshot.Hash{}, sealed),
		"longer":     open(dk, c, salt, 40, snapshot.Content, id, append(bytes.Clone(sealed), 0)),
		"shorter":    open(dk, c, salt, 40, snapshot.Content, id, sealed[:len(sealed)-1]),
		"empty":      open(dk, c, salt, 40, snapshot.Content, id, nil),
	} {
		if !errors.Is(err, ErrAuth) {
			t.Errorf("other %s: %v", name, err)
		}
	}
	for i := range sealed {
		for bit := range 8 {
			b := bytes.Clone(sealed)
			b[i] ^= 1 << bit
			if err := open(dk, c, salt, 40, snapshot.Content, id, b); !errors.Is(err, ErrAuth) {
				t.Fatalf("byte %d, bit %d flipped: %v", i, bit, err)
			}
		}
	}
}

func TestIndex(t *testing.T) {
	pack := NewKeys(sampleKey(), sampleContext()).Pack([32]byte{1})
	want := []snapshot.IndexEntry{{Kind: snapshot.Content, ID: snapshot.Hash{1}, Sealed: 100, Plain: 90}, {Kind: snapshot.Tree, ID: snapshot.Hash{2}, Sealed: 60, Plain: 900}}
	const end = snapshot.PackHeaderSize + 160
	sealed := pack.SealIndex(nil, end, want)
	got, err := pack.OpenIndex(end, sealed)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if _, err := pack.OpenIndex(end+1, sealed); !errors.Is(err, ErrAuth) {
		t.Error(err)
	}
	if _, err := pack.OpenIndex(end+1, pack.SealIndex(nil, end+1, want)); !errors.Is(err, snapshot.ErrFormat) {
		t.Errorf("index that does not fill its pack: %v", err)
	}
	compressed := pack.Seal(nil, end, snapshot.Index, snapshot.Hash{}, append([]byte{1}, snapshot.EncodeIndex(want)...))
	if _, err := pack.OpenIndex(end, compressed); !errors.Is(err, ErrEncoding) {
		t.Errorf("compressed index: %v", err)
	}
}

func TestFileHasher(t *testing.T) {
	keys := NewKeys(sampleKey(), sampleContext())
	h := keys.FileHasher()
	for range 2 {
		for _, part := range []string{"some ", "", "content"} {
			if _, err := h.Write([]byte(part)); err != nil {
				t.Fatal(err)
			}
		}
		if h.Sum() != keys.FileID([]byte("some content")) {
			t.Fatal("the parts have another id than the whole")
		}
		h.Reset()
	}
}

// TestSecrets checks that a data key does not print itself, whatever the verb.
func TestSecrets(t *testing.T) {
	k := sampleKey()
	text, err := json.Marshal(map[string]any{"key": k})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprint(k), fmt.Sprintf("%v %+v %#v %x %X %d %s %q %08b", k, k, k, k, k, k, k, k, k), fmt.Sprintf("%+v", struct{ K DataKey }{k}), string(text)} {
		if strings.Contains(s, "2") || strings.Contains(s, "AQID") {
			t.Errorf("shows the key: %s", s)
		}
	}
}

func TestConcurrent(t *testing.T) {
	keys, codec := NewKeys(sampleKey(), sampleContext()), NewCodec()
	pack := keys.Pack([32]byte{1})
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			plain := bytes.Repeat([]byte{byte(g), 1, 2}, 1000*(g+1))
			want := keys.ChunkID(snapshot.Content, plain)
			for range 50 {
				id := keys.ChunkID(snapshot.Content, plain)
				sealed := pack.Seal(nil, uint32(g), snapshot.Content, id, codec.Compress(nil, plain))
				encoded, err := pack.Open(nil, uint32(g), snapshot.Content, want, sealed)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := codec.Decompress(nil, encoded, len(plain)); err != nil || !bytes.Equal(got, plain) {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

func benchmarkSeal(b *testing.B, fn func(pack *Pack, keys *Keys, plain, sealed []byte)) {
	keys := NewKeys(sampleKey(), sampleContext())
	pack := keys.Pack([32]byte{1})
	plain := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	sealed := pack.Seal(nil, 40, snapshot.Content, snapshot.Hash{}, plain)
	b.SetBytes(int64(len(plain)))
	b.ReportAllocs()
	for b.Loop() {
		fn(pack, keys, plain, sealed)
	}
}

func BenchmarkChunkID(b *testing.B) {
	benchmarkSeal(b, func(_ *Pack, keys *Keys, plain, _ []byte) { keys.ChunkID(snapshot.Content, plain) })
}

func BenchmarkSmallChunkID(b *testing.B) {
	benchmarkSeal(b, func(_ *Pack, keys *Keys, plain, _ []byte) { keys.ChunkID(snapshot.Content, plain[:100]) })
}

func BenchmarkSeal(b *testing.B) {
	dst := make([]byte, 0, 2<<20)
	benchmarkSeal(b, func(pack *Pack, _ *Keys, plain, _ []byte) {
		pack.Seal(dst, 40, snapshot.Content, snapshot.Hash{}, plain)
	})
}

func BenchmarkOpen(b *testing.B) {
	dst := make([]byte, 0, 2<<20)
	benchmarkSeal(b, func(pack *Pack, _ *Keys, _, sealed []byte) {
		if _, err := pack.Open(dst, 40, snapshot.Content, snapshot.Hash{}, sealed); err != nil {
			b.Fatal(err)
		}
	})
}
