package keyring

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func grant(host string, only ...string) Grant {
	return Grant{TrustedSigner: TrustedSigner{Key: sampleSigner().Public(), Host: host}, Only: only}
}

// TestScopes has a row for each sort of signer and a column for each sort of document.
func TestScopes(t *testing.T) {
	objects := map[string]string{
		"repository": "v1/repository.json",
		"access":     "v1/access/0000000002.json",
		"manifest":   "v1/web/etc/snapshots/0000000042.json",
		"key":        "v1/web/etc/keys/ab/cd.json",
		"mark":       "v1/web/etc/marks/0000000001/ab.json",
		"condemned":  "v1/web/etc/condemned/0000000001.json",
		"expired":    "v1/web/etc/expired/0000000001.json",
		"damaged":    "v1/web/etc/damaged/ab.json",
		"host":       "v1/web/etc/receipts/host/x.json",
		"cloud":      "v1/web/etc/receipts/cloud/x.json",
		"other":      "v1/db/etc/receipts/cloud/x.json",
		"near":       "v1/web/etc/receipts/cloudy/x.json",
		"source":     "v1/web/receipts/cloud/x.json", // of a source that is named so
	}
	for name, c := range map[string]struct {
		grants []Grant
		may    string
	}{
		"owner":     {[]Grant{grant("*")}, "access cloud condemned damaged expired host key manifest mark near other repository source"},
		"host":      {[]Grant{grant("web")}, "condemned damaged expired host key manifest mark near source"},
		"verify":    {[]Grant{grant("*", CloudReceipts, "damaged")}, "cloud damaged other"},
		"lifecycle": {[]Grant{grant("*", "condemned", "expired", CloudReceipts)}, "cloud condemned expired other"},
		"capture":   {[]Grant{grant("web", HostParts()...)}, "damaged host key manifest"},
		"receipts":  {[]Grant{grant("*", "receipts")}, "cloud host near other"},
		"one host":  {[]Grant{grant("web", CloudReceipts)}, "cloud"},
		"nothing":   {[]Grant{{TrustedSigner: grant("*").TrustedSigner, Only: []string{}}}, ""},
		"empty":     {[]Grant{grant("*", "")}, ""},
		"access":    {[]Grant{grant("*", "access", "repository.json", "v1")}, ""},
		"two":       {[]Grant{grant("web", "marks"), grant("db", CloudReceipts)}, "mark other"},
		"nobody":    {nil, ""},
	} {
		trust := &Trust{}
		for _, g := range c.grants {
			trust.Grant(g)
		}
		for object, key := range objects {
			want := false
			for _, word := range strings.Fields(c.may) {
				want = want || word == object
			}
			if got := trust.Allows(sampleSigner().Public(), key); got != want {
				t.Errorf("%s, %s: %v", name, object, got)
			}
			doc := Sign(sampleSigner(), sampleRepository, key, []byte(`{}`))
			if _, _, err := Open(doc, sampleRepository, key, trust); (err == nil) != want || err != nil && !errors.Is(err, ErrUntrusted) {
				t.Errorf("%s, %s: open: %v", name, object, err)
			}
			if trust.Allows(NewSigner().Public(), key) {
				t.Errorf("%s, %s: a stranger may", name, object)
			}
		}
	}
}

// TestGrantIsCopied guards against limits that grow later.
func TestGrantIsCopied(t *testing.T) {
	trust, g := &Trust{}, grant("*", CloudReceipts)
	trust.Grant(g)
	g.Only[0] = "snapshots"
	trust.Grant(grant("*", CloudReceipts)) // a second time
	if diff := cmp.Diff([]Grant{grant("*", CloudReceipts)}, trust.List()); diff != "" {
		t.Error(diff)
	}
}

func TestCheckOnly(t *testing.T) {
	if err := errors.Join(CheckOnly(nil), CheckOnly(ScopedParts()), CheckOnly(HostParts())); err != nil {
		t.Error(err)
	}
	for _, bad := range [][]string{{}, {""}, {"receipts"}, {"marks", "marks"}, {"../snapshots"}} {
		if CheckOnly(bad) == nil {
			t.Errorf("%q passes", bad)
		}
	}
}
