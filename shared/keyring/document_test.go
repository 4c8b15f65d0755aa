package keyring

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

const sampleKey = "v1/web/etc/snapshots/0000000042.json"

var sampleRepository = snapshot.RepositoryID{0xab, 15: 1}

func sampleTrust(hosts ...string) *Trust {
	t := &Trust{}
	for _, h := range hosts {
		t.Add(sampleSigner().Public(), h)
	}
	return t
}

func sampleDocument() []byte {
	return Sign(sampleSigner(), sampleRepository, sampleKey, []byte(`{"format":1,"text":"ü \u2028"}`))
}

func TestDocumentGolden(t *testing.T) {
	path := filepath.Join("testdata", "document.json")
	if *update {
		if err := os.WriteFile(path, sampleDocument(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(golden), string(sampleDocument())); diff != "" {
		t.Fatal(diff)
	}
	payload, signer, err := Open(golden, sampleRepository, sampleKey, sampleTrust("web"))
	if err != nil || signer != sampleSigner().Public() || string(payload) != `{"format":1,"text":"ü \u2028"}` {
		t.Fatal(string(payload), signer, err)
	}
	if peeked, who, err := Peek(golden); err != nil || who != signer || !bytes.Equal(peeked, payload) {
		t.Fatal(string(peeked), who, err)
	}
}

// TestDocumentMessage computes the signed bytes as docs/format.md says.
func TestDocumentMessage(t *testing.T) {
	payload := []byte(`{"a":1}`)
	doc := Sign(sampleSigner(), sampleRepository, sampleKey, payload)
	_, _, signature, err := split(doc)
	if err != nil {
		t.Fatal(err)
	}
	message := "holdfast v1 document\x00" + "ab000000000000000000000000000001" + "\x00" + sampleKey + "\x00" + `{"a":1}`
	public := sampleSigner().Public()
	if !ed25519.Verify(public[:], []byte(message), signature) {
		t.Fatal("the signature is over something else")
	}
}

func TestOpenTrust(t *testing.T) {
	const key, access, config = sampleKey, "v1/access/0000000001.json", "v1/repository.json"
	for _, c := range []struct {
		key   string
		trust *Trust
		want  error
	}{
		{key, sampleTrust("web"), nil},
		{key, sampleTrust("*"), nil},
		{key, sampleTrust("db", "web"), nil},
		{key, sampleTrust("db"), ErrUntrusted},
		{key, sampleTrust(), ErrUntrusted},
		{key, nil, ErrUntrusted},
		{access, sampleTrust("*"), nil},
		{access, sampleTrust("web", "access"), ErrUntrusted},
		{config, sampleTrust("*"), nil},
		{config, sampleTrust("web", "repository.json"), ErrUntrusted},
		{"v1/web/policy/20260102T030405.000000006Z", sampleTrust("web"), nil},
		{"v2/web/etc/x", sampleTrust("*"), ErrUntrusted},
		{"v1/../etc/x", sampleTrust("*"), ErrUntrusted},
		{"v1/web", sampleTrust("*"), ErrUntrusted},
		{"v1/web/", sampleTrust("*"), ErrUntrusted},
		{"", sampleTrust("*"), ErrUntrusted},
	} {
		doc := Sign(sampleSigner(), sampleRepository, c.key, []byte(`{}`))
		if _, _, err := Open(doc, sampleRepository, c.key, c.trust); !errors.Is(err, c.want) {
			t.Errorf("%q: %v, want %v", c.key, err, c.want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	doc, trust := sampleDocument(), sampleTrust("*")
	line := doc[bytes.IndexByte(doc, '\n')+1:]
	with := func(old, now string) []byte { return bytes.Replace(doc, []byte(old), []byte(now), 1) }
	other := Sign(NewSigner(), sampleRepository, sampleKey, []byte(`{}`))
	for name, c := range map[string]struct {
		doc  []byte
		want error
	}{
		"empty":              {nil, ErrUnsigned},
		"payload alone":      {doc[:bytes.IndexByte(doc, '\n')+1], ErrUnsigned},
		"no last newline":    {doc[:len(doc)-1], ErrUnsigned},
		"another newline":    {append(bytes.Clone(doc), '\n'), ErrUnsigned},
		"third line":         {append(bytes.Clone(doc), line...), ErrUnsigned},
		"carriage return":    {with("\n", "\r\n"), ErrUnsigned},
		"space in line 2":    {with(`,"signature"`, `, "signature"`), ErrUnsigned},
		"member in line 2":   {with(`,"signature"`, `,"x":1,"signature"`), ErrUnsigned},
		"no signature":       {append(bytes.Clone(doc[:len(doc)-len(line)]), "{}\n"...), ErrUnsigned},
		"short signature":    {append(bytes.Clone(doc[:len(doc)-len(line)]), signatureLine(sampleSigner().Public(), []byte("x"))...), ErrUnsigned},
		"array":              {append([]byte("[]\n"), line...), ErrUnsigned},
		"two objects":        {append([]byte("{}{}\n"), line...), ErrUnsigned},
		"no JSON":            {append([]byte("{x}\n"), line...), ErrUnsigned},
		"other payload":      {with(`"format":1`, `"format":2`), ErrSignature},
		"space in payload":   {with(`{"format"`, `{ "format"`), ErrSignature},
		"other signer":       {other, ErrUntrusted},
		"signature of other": {append(bytes.Clone(doc[:len(doc)-len(line)]), other[bytes.IndexByte(other, '\n')+1:]...), ErrSignature},
		"too long":           {append(bytes.Repeat([]byte(" "), MaxDocument), doc...), ErrUnsigned},
	} {
		if _, _, err := Open(c.doc, sampleRepository, sampleKey, trust); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, _, err := Open(doc, snapshot.RepositoryID{}, sampleKey, trust); !errors.Is(err, ErrSignature) {
		t.Errorf("from another repository: %v", err)
	}
	if _, _, err := Open(doc, sampleRepository, strings.Replace(sampleKey, "42", "43", 1), trust); !errors.Is(err, ErrSignature) {
		t.Errorf("at another key: %v", err)
	}
	for i := range doc {
		for bit := range 8 {
			b := bytes.Clone(doc)
			b[i] ^= 1 << bit
			if _, _, err := Open(b, sampleRepository, sampleKey, trust); err == nil {
				t.Fatalf("byte %d, bit %d flipped passes", i, bit)
			}
		}
	}
}

func TestSignPanics(t *testing.T) {
	for _, payload := range []string{"", "[]", "{\n}", "{", "1"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q is signed", payload)
				}
			}()
			Sign(sampleSigner(), sampleRepository, sampleKey, []byte(payload))
		}()
	}
}

func TestTrustList(t *testing.T) {
	trust := sampleTrust("web", "*", "db", "web")
	k := sampleSigner().Public()
	want := []Grant{{TrustedSigner: TrustedSigner{k, "*"}}, {TrustedSigner: TrustedSigner{k, "db"}}, {TrustedSigner: TrustedSigner{k, "web"}}}
	if diff := cmp.Diff(want, trust.List()); diff != "" {
		t.Fatal(diff)
	}
	var none *Trust
	if none.Allows(k, sampleKey) || len(none.List()) != 0 {
		t.Fatal("nobody trusts")
	}
}

func TestPublicKey(t *testing.T) {
	k := sampleSigner().Public()
	if got, err := ParsePublicKey(k.String()); err != nil || got != k {
		t.Fatal(err)
	}
	text := k.String()
	for _, s := range []string{"", text[1:], text + "\n", text[:10] + "\n" + text[10:], text[:len(text)-1], text + "AAAA", text[:42] + "9="} {
		if got, err := ParsePublicKey(s); err == nil {
			t.Errorf("%q passes as %v", s, got)
		}
	}
}

// FuzzDocument checks that a document has exactly one form: what parses is what would be written.
func FuzzDocument(f *testing.F) {
	f.Add(sampleDocument())
	f.Add([]byte("{}\n" + signatureLine(PublicKey{}, make([]byte, 64))))
	f.Fuzz(func(t *testing.T, doc []byte) {
		payload, signer, signature, err := split(doc)
		if err != nil {
			if !errors.Is(err, ErrUnsigned) {
				t.Fatalf("%v is no ErrUnsigned", err)
			}
			return
		}
		if again := string(payload) + "\n" + signatureLine(signer, signature); again != string(doc) {
			t.Fatalf("parses, and would be written otherwise:\n%q\n%q", doc, again)
		}
		_, _, _ = Open(doc, sampleRepository, sampleKey, sampleTrust("*"))
	})
}
