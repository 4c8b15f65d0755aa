package gs_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/gs"
)

// account makes the key file of a service account whose tokens come from uri the default credentials.
func account(t *testing.T, uri string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	file, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "test@example.org", "private_key": string(block), "token_uri": uri,
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", path)
}

// What is wrong where access tokens are given out passes, or not, as with the store itself.
func TestTokenTrouble(t *testing.T) {
	answer := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(answer) }))
	defer server.Close()
	account(t, server.URL)
	store := httptest.NewTLSServer(http.NotFoundHandler()) // without a token it is never asked
	defer store.Close()
	s := open(t, gs.Options{Bucket: "bucket", Endpoint: store.URL})
	for code, want := range map[int]bool{500: true, 502: true, 503: true, 504: true, 429: true, 400: false, 401: false, 403: false} {
		answer = code
		if _, err := s.Stat(t.Context(), "k"); err == nil || objstore.IsTransient(err) != want {
			t.Errorf("%d: transient is %v: %v", code, !want, err)
		}
	}
	server.Close()
	if _, err := s.Stat(t.Context(), "k"); !objstore.IsTransient(err) {
		t.Errorf("nobody gives out tokens: %v", err)
	}
}
