package snapshot

import (
	"strings"
	"testing"
)

func TestParseSelector(t *testing.T) {
	for text, want := range map[string]Selector{
		"etc":             {Name: "etc"},
		"web/etc":         {Host: "web", Name: "etc"},
		"etc@42":          {Name: "etc", Sequence: 42},
		"etc@latest":      {Name: "etc", Latest: true},
		"web/etc@1":       {Host: "web", Name: "etc", Sequence: 1},
		"web.a-b/e_1@999": {Host: "web.a-b", Name: "e_1", Sequence: 999},
	} {
		got, err := ParseSelector(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if got.String() != text {
			t.Errorf("%q prints as %q", text, got)
		}
	}
	for _, text := range []string{
		"", "@1", "/etc", "web/", "a/b/c", "etc@", "etc@0", "etc@01", "etc@+1", "etc@-1", "etc@Latest", "etc@1@2", "policy", "access/etc", "repository.json/etc",
		"etc@10000000000", ".etc", "e tc", strings.Repeat("x", 64),
	} {
		if got, err := ParseSelector(text); err == nil {
			t.Errorf("%q passes as %+v", text, got)
		}
	}
}

func TestParseID(t *testing.T) {
	id, err := ParseID("web/etc@42")
	if err != nil || id != (ID{Source{"web", "etc"}, 42}) || id.String() != "web/etc@42" {
		t.Fatal(id, err)
	}
	for _, text := range []string{"etc@42", "web/etc", "web/etc@latest"} {
		if _, err := ParseID(text); err == nil {
			t.Errorf("%q passes", text)
		}
	}
}

func TestParseHex(t *testing.T) {
	h := Hash{0xab, 31: 1}
	if got, err := ParseHash(h.String()); err != nil || got != h {
		t.Fatal(err)
	}
	c := ChainID{0xab, 15: 1}
	if got, err := ParseChainID(c.String()); err != nil || got != c {
		t.Fatal(err)
	}
	for _, text := range []string{"", strings.ToUpper(h.String()), h.String()[1:], h.String() + "0", strings.Repeat("g", 64)} {
		if _, err := ParseHash(text); err == nil {
			t.Errorf("%q passes", text)
		}
	}
}

func FuzzParseSelector(f *testing.F) {
	f.Add("web/etc@42")
	f.Add("etc@latest")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := ParseSelector(text); err == nil && s.String() != text {
			t.Fatalf("%q prints as %q", text, s)
		}
	})
}
