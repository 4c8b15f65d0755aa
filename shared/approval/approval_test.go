package approval_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/approval"
	"github.com/btcdecoded/holdfast/shared/policy"
)

var update = flag.Bool("update", false, "rewrite golden files")

const id = "00112233445566778899aabbccddeeff"

func created() time.Time { return time.Date(2026, 1, 31, 9, 0, 0, 0, time.UTC) }

func request() approval.Request {
	return approval.Request{
		Version: 1, ID: id, Host: "web-1", Source: "web-1/app", Snapshot: 42, Target: "/srv/restore/app",
		Paths: []string{"/srv/app/data"}, Reason: "ticket 7", Created: created(), Expires: created().Add(time.Hour),
	}
}

// key is the same private key for the same number, in all runs.
func key(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func line(k ed25519.PrivateKey) string {
	b := binary.BigEndian.AppendUint32(nil, 11)
	b = append(b, "ssh-ed25519"...)
	b = binary.BigEndian.AppendUint32(b, 32)
	return "ssh-ed25519 " + base64.StdEncoding.EncodeToString(append(b, k.Public().(ed25519.PublicKey)...))
}

func rules() *policy.Policy {
	return &policy.Policy{
		Version:   1,
		Approvers: []policy.Approver{{Name: "one", Key: line(key(1))}, {Name: "two", Key: line(key(2))}, {Name: "three", Key: line(key(3))}},
		Hosts: map[string]*policy.Host{
			"web-1": {Restore: policy.Restore{Targets: []string{"/srv/restore"}}},
			"web-2": {Restore: policy.Restore{InPlace: true}},
		},
	}
}

func encode(t testing.TB, r approval.Request) []byte {
	t.Helper()
	b, err := approval.Encode(&r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sign(t testing.TB, b []byte, name string, k ed25519.PrivateKey) events.Signature {
	t.Helper()
	s, err := approval.Sign(b, name, k)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// order is a request with the signatures of two approvers.
func order(t testing.TB, r approval.Request) *events.RestoreOrder {
	t.Helper()
	b := encode(t, r)
	return &events.RestoreOrder{Request: b, Signatures: []events.Signature{sign(t, b, "one", key(1)), sign(t, b, "two", key(2))}}
}

func TestCheck(t *testing.T) {
	changed := func(change func(*approval.Request)) approval.Request {
		r := request()
		change(&r)
		return r
	}
	inPlace := changed(func(r *approval.Request) {
		r.Host, r.Source, r.InPlace, r.Target = "web-2", "web-2/app", true, ""
	})
	for name, tt := range map[string]struct {
		order *events.RestoreOrder
		host  string
		id    string
		now   time.Time
		code  events.RefuseCode // empty: it runs
	}{
		"good":               {order: order(t, request())},
		"at its last moment": {order: order(t, request()), now: created().Add(time.Hour)},
		"a dead host's data": {order: order(t, changed(func(r *approval.Request) { r.Source = "old-1/app" }))},
		"in place, allowed":  {order: order(t, inPlace), host: "web-2"},

		"expired":             {order: order(t, request()), now: created().Add(time.Hour + time.Second), code: events.Stale},
		"from the future":     {order: order(t, request()), now: created().Add(-time.Hour), code: events.NotAllowed},
		"another host":        {order: order(t, changed(func(r *approval.Request) { r.Host = "web-2" })), code: events.Foreign},
		"another job":         {order: order(t, request()), id: strings.Repeat("0", 32), code: events.Forged},
		"in place":            {order: order(t, changed(func(r *approval.Request) { r.InPlace, r.Target = true, "" })), code: events.NotAllowed},
		"in place of another": {order: order(t, changed(func(r *approval.Request) { r.Host, r.InPlace, r.Target = "web-2", true, "" })), host: "web-2", code: events.NotAllowed},
		"target outside":      {order: order(t, changed(func(r *approval.Request) { r.Target = "/etc" })), code: events.NotAllowed},
		"target beside":       {order: order(t, changed(func(r *approval.Request) { r.Target = "/srv/restore-me" })), code: events.NotAllowed},
		"the root itself":     {order: order(t, changed(func(r *approval.Request) { r.Target = "/srv/restore" })), code: events.NotAllowed},
		"no order":            {code: events.Malformed},
		"rubbish":             {order: &events.RestoreOrder{Request: []byte("{}")}, code: events.Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.host == "" {
				tt.host = "web-1"
			}
			if tt.id == "" {
				tt.id = id
			}
			if tt.now.IsZero() {
				tt.now = created().Add(time.Minute)
			}
			r, err := approval.Check(rules(), tt.host, tt.id, tt.order, tt.now)
			if tt.code == "" {
				if err != nil || r == nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			if err == nil || approval.Code(err) != tt.code {
				t.Errorf("%v, want %s", err, tt.code)
			}
		})
	}
}

// TestSignatures tampers with who signed what.
func TestSignatures(t *testing.T) {
	b := encode(t, request())
	one, two := sign(t, b, "one", key(1)), sign(t, b, "two", key(2))
	other := request()
	other.Target = "/srv/restore/other"
	for name, list := range map[string][]events.Signature{
		"none":                     nil,
		"one":                      {one},
		"one twice":                {one, one},
		"one under two names":      {one, sign(t, b, "two", key(1))},
		"a stranger":               {one, sign(t, b, "four", key(4))},
		"a stranger's key":         {one, sign(t, b, "two", key(4))},
		"over another request":     {one, sign(t, encode(t, other), "two", key(2))},
		"two good and a wrong one": {one, two, sign(t, b, "three", key(4))},
		"not base64":               {one, {Signer: "two", Signature: "!"}},
		"cut off":                  {one, {Signer: "two", Signature: two.Signature[:40]}},
		"empty":                    {one, {Signer: "two"}},
		"too many":                 slicesRepeat(one, 17),
	} {
		_, err := approval.Check(rules(), "web-1", id, &events.RestoreOrder{Request: b, Signatures: list}, created())
		if err == nil || approval.Code(err) != events.Forged {
			t.Errorf("%s: %v, want forged", name, err)
		}
	}
	// A raw signature of the bytes is none: what was signed for something else must not count here.
	raw := events.Signature{Signer: "two", Signature: base64.StdEncoding.EncodeToString(ed25519.Sign(key(2), b))}
	if err := approval.Verify(b, raw, key(2).Public().(ed25519.PublicKey)); err == nil {
		t.Error("a signature without a namespace counts")
	}
	if _, err := approval.Check(nil, "web-1", id, order(t, request()), created()); approval.Code(err) != events.Forged {
		t.Errorf("without a policy: %v", err)
	}
}

func slicesRepeat(s events.Signature, n int) (out []events.Signature) {
	for range n {
		out = append(out, s)
	}
	return out
}

func TestRequestIsStrict(t *testing.T) {
	good := string(encode(t, request()))
	for name, text := range map[string]string{
		"unknown member":  strings.Replace(good, `"reason"`, `"command": "sh", "reason"`, 1),
		"member twice":    strings.Replace(good, `"snapshot": 42`, `"snapshot": 42, "snapshot": 43`, 1),
		"other spelling":  strings.Replace(good, `"snapshot"`, `"Snapshot"`, 1),
		"other spaces":    strings.Replace(good, `"snapshot": 42`, `"snapshot":42`, 1),
		"more follows":    good + good,
		"cut off":         good[:40],
		"relative target": strings.Replace(good, "/srv/restore/app", "srv/restore", 1),
		"climbing target": strings.Replace(good, "/srv/restore/app", "/srv/restore/../../etc", 1),
		"control codes":   strings.Replace(good, "ticket 7", `\u001b[2J`, 1),
		"no snapshot":     strings.Replace(good, `"snapshot": 42`, `"snapshot": 0`, 1),
		"bad id":          strings.Replace(good, id, "x", 1),
		"bad host":        strings.Replace(good, `"host": "web-1"`, `"host": "../x"`, 1),
		"version 2":       strings.Replace(good, `"version": 1`, `"version": 2`, 1),
		"too long a life": strings.Replace(good, "2026-01-31T10:00:00Z", "2026-03-31T10:00:00Z", 1),
		"huge":            good + strings.Repeat(" ", approval.MaxRequest),
	} {
		if text == good {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := approval.Decode([]byte(text)); err == nil {
			t.Errorf("%s: decodes", name)
		}
	}
	r, err := approval.Decode([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(request(), *r); diff != "" {
		t.Error(diff)
	}
}

// TestOpenSSH checks a signature that `ssh-keygen -Y sign -n holdfast-restore` made over testdata/request.json, and that
// ours have the same form: signatures of Ed25519 are not random, so the same key gives the same bytes.
func TestOpenSSH(t *testing.T) {
	b := encode(t, request())
	if *update {
		if err := os.WriteFile("testdata/request.json", b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) []byte {
		text, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if !bytes.Equal(read("request.json"), b) {
		t.Fatal("testdata/request.json is not the request of the tests")
	}
	public, err := policy.ParseSSHKey(string(read("key.pub")))
	if err != nil {
		t.Fatal(err)
	}
	s, err := approval.FromSSH(read("request.json.sig"), "one")
	if err != nil {
		t.Fatal(err)
	}
	if err := approval.Verify(b, s, public); err != nil {
		t.Error(err)
	}
	if err := approval.Verify(append(b, ' '), s, public); err == nil {
		t.Error("the signature counts for other bytes")
	}
	if !key(1).Public().(ed25519.PublicKey).Equal(public) {
		t.Fatal("testdata/key.pub is not key 1 of the tests")
	}
	if diff := cmp.Diff(s, sign(t, b, "one", key(1))); diff != "" {
		t.Errorf("not as OpenSSH signs:\n%s", diff)
	}
	for _, bad := range []string{"", "x", "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----"} {
		if _, err := approval.FromSSH([]byte(bad), "one"); err == nil {
			t.Errorf("%q is taken for a signature", bad)
		}
	}
	wrong := bytes.Replace(read("request.json.sig"), []byte("\n"), []byte("\nAAAA"), 1)
	if _, err := approval.FromSSH(wrong, "one"); err == nil {
		t.Error("an altered file is taken for a signature")
	}
}

func TestNewID(t *testing.T) {
	a, b := approval.NewID(), approval.NewID()
	if !events.IsID(a) || a == b {
		t.Errorf("%q, %q", a, b)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(f, request()))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := approval.Decode(b)
		if err != nil {
			return
		}
		again, err := approval.Encode(r)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%v\n%q\n%q", err, again, b)
		}
	})
}

func FuzzVerify(f *testing.F) {
	b := encode(f, request())
	good := sign(f, b, "one", key(1)).Signature
	public := key(1).Public().(ed25519.PublicKey)
	f.Add(good)
	f.Add("")
	f.Add(base64.StdEncoding.EncodeToString([]byte("SSHSIG\x00\x00\x00\x01\xff\xff\xff\xff")))
	f.Fuzz(func(t *testing.T, text string) {
		if err := approval.Verify(b, events.Signature{Signer: "one", Signature: text}, public); err == nil && text != good {
			t.Errorf("%q counts", text)
		}
	})
}
