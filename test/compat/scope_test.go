package compat_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/trees"
)

// testScopes lets signers with limits sign all sorts of documents; both programs must refuse those beyond the limits.
func testScopes(t *testing.T, p programs) {
	b := newBench(t, p, trees.TempDir(t))
	write(t, filepath.Join(b.tree(), "file"), 0, random(1, 100_000))
	b.backup(t)
	signers := map[string]*keyring.Signer{}
	for name, rights := range map[string][]string{
		"verify":    {"*", "receipts/cloud,damaged"},
		"lifecycle": {"*", "condemned,expired,receipts/cloud"},
		"capture":   {"one", "snapshots,keys,receipts/host"},
		"host":      {"one"},
	} {
		signers[name] = keyring.NewSigner()
		args := []string{"key", "add", "--quiet", "--signer", signers[name].Public().String(), "--for-host", rights[0]}
		if len(rights) > 1 {
			args = append(args, "--only", rights[1])
		}
		b.mustRun(t, args...)
	}
	signers["stranger"] = keyring.NewSigner()
	for kind, may := range map[string]string{
		"receipts/cloud": "verify lifecycle",
		"receipts/host":  "capture host",
		"condemned":      "lifecycle host",
		"marks":          "host",
		"snapshots":      "capture host",
	} {
		for name, signer := range signers {
			t.Run(name+" signs "+kind, func(t *testing.T) {
				t.Parallel()
				on := b.on(filepath.Join(t.TempDir(), "repository"))
				if err := os.CopyFS(on.copy, os.DirFS(b.repository())); err != nil {
					t.Fatal(err)
				}
				key := signAs(t, objects{on.copy}, kind, signer)
				wrong := !strings.Contains(" "+may+" ", " "+name+" ")
				out, code := on.read(t, "verify")
				if (code == 1 && strings.Contains(out, key)) != wrong {
					t.Errorf("the reader ends with exit code %d and\n%s", code, out)
				}
				out, code = on.run(t, "verify", "--level", "content", "--no-receipts")
				if (code == 4 && strings.Contains(out, key+": signer is not trusted")) != wrong {
					t.Errorf("holdfast ends with exit code %d and\n%s", code, out)
				}
			})
		}
	}
}

// signAs puts a document of a kind about the first snapshot, signed by signer, and returns its key. Of a manifest, the
// one that is there is signed again.
func signAs(t *testing.T, o objects, kind string, signer *keyring.Signer) string {
	t.Helper()
	src, err := snapshot.ParseSource(source)
	if err != nil {
		t.Fatal(err)
	}
	id := snapshot.ID{Source: src, Sequence: 1}
	var repository struct {
		ID string `json:"id"`
	}
	payload, _, err := keyring.Peek(o.read(t, layout.RepositoryKey))
	if err != nil || json.Unmarshal(payload, &repository) != nil {
		t.Fatal(err)
	}
	repo, err := layout.ParseRepository(repository.ID)
	if err != nil {
		t.Fatal(err)
	}
	manifest := o.read(t, layout.ManifestKey(id))
	hash := snapshot.Hash(sha256.Sum256(manifest))
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	stamp := now.Format(time.RFC3339)
	about := fmt.Sprintf(`{"sequence":1,"manifest":"%s"`, hash)
	receipt := fmt.Sprintf(`%s,"level":"structure","result":"pass","started":"%s","finished":"%s","packs":1,"bytes":1,"problems":[]}`, about, stamp, stamp)
	var key, text string
	switch kind {
	case "receipts/cloud":
		key, text = layout.ReceiptKey(id, layout.ReceiptCloud, now, "structure"), receipt
	case "receipts/host":
		key, text = layout.ReceiptKey(id, layout.ReceiptHost, now, "structure"), receipt
	case "condemned":
		key, text = layout.CondemnedKey(id), fmt.Sprintf(`%s,"time":"%s","reasons":[]}`, about, stamp)
	case "marks":
		key, text = layout.MarkKey(id, strings.Repeat("ab", 16)), fmt.Sprintf(`%s,"mark":"pin","value":"x","time":"%s"}`, about, stamp)
	case "snapshots":
		key = layout.ManifestKey(id)
		payload, _, err := keyring.Peek(manifest)
		if err != nil {
			t.Fatal(err)
		}
		text = string(payload)
	}
	name := filepath.Join(o.dir, key)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(name)
	if err := os.WriteFile(name, keyring.Sign(signer, repo, key, []byte(text)), 0o600); err != nil {
		t.Fatal(err)
	}
	return key
}
