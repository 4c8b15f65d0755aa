package snapshot

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// TestManifestTooNew checks that what a newer program wrote is told from damage.
func TestManifestTooNew(t *testing.T) {
	b, err := json.Marshal(sampleManifest())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"format":                  strings.Replace(string(b), `"format":1`, `"format":2`, 1),
		"requires":                `{"requires":["sparse-maps"],` + string(b[1:]),
		"requires, other members": `{"requires":["sparse-maps"],"format":"x","root":7}`,
	} {
		if _, err := ParseManifest([]byte(text)); !errors.Is(err, ErrUnsupported) || errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, text := range []string{`{"requires":[],` + string(b[1:]), strings.Replace(string(b), `"before upgrade"`, `"\"requires\":[1]"`, 1)} {
		if _, err := ParseManifest([]byte(text)); err != nil || text == string(b) {
			t.Errorf("%v", err)
		}
	}
	if _, err := ParseManifest([]byte(`{"requires":"x",` + string(b[1:]))); !errors.Is(err, ErrFormat) {
		t.Errorf("requires that is no list: %v", err)
	}
}

// TestManifestTexts checks that what may be in a text does not depend on what Unicode knows today.
func TestManifestTexts(t *testing.T) {
	for _, tag := range []string{"ü", "\u00a0", "a b", "\U0001f6df", "\u0378 is no letter yet", "\ue000 is nobody's", "日本"} {
		m := sampleManifest()
		m.Tags = []string{tag}
		if err := m.Check(); err != nil {
			t.Errorf("%q: %v", tag, err)
		}
	}
}
