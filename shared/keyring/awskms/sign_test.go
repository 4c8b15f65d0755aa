package awskms_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/btcdecoded/holdfast/shared/keyring/awskms"
)

// signer answers GetPublicKey and Sign as KMS does. test/approve has the same with the emulator's KMS.
type signer struct {
	key   crypto.Signer
	usage string
	by    string // algorithm
	wrong string // the key by which it says it answers
	fail  bool
}

func (s *signer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct {
		KeyID            string `json:"KeyId"`
		Message          []byte
		MessageType      string
		SigningAlgorithm string
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || s.fail {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"__type":"DisabledException","message":"the key is disabled"}`)
		return
	}
	key := in.KeyID
	if s.wrong != "" {
		key = s.wrong
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	switch r.Header.Get("X-Amz-Target") {
	case "TrentService.GetPublicKey":
		der, _ := x509.MarshalPKIXPublicKey(s.key.Public())
		_ = json.NewEncoder(w).Encode(map[string]any{
			"KeyId": key, "PublicKey": der, "KeyUsage": s.usage, "KeySpec": "ECC_NIST_P256", "SigningAlgorithms": []string{s.by},
		})
	case "TrentService.Sign":
		if in.MessageType != "RAW" || in.SigningAlgorithm != s.by {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		hash, message := crypto.Hash(0), in.Message
		if s.by == "ECDSA_SHA_256" {
			sum := sha256.Sum256(message)
			hash, message = crypto.SHA256, sum[:]
		}
		signature, _ := s.key.Sign(rand.Reader, message, hash)
		_ = json.NewEncoder(w).Encode(map[string]any{"KeyId": key, "Signature": signature, "SigningAlgorithm": s.by})
	}
}

func signWith(t *testing.T, s *signer) *awskms.Client {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return awskms.New(awskms.Options{Endpoint: server.URL, Config: &aws.Config{
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "a", SecretAccessKey: "b"}, nil
		}),
		Retryer: func() aws.Retryer { return aws.NopRetryer{} },
	}})
}

func TestSign(t *testing.T) {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	message := []byte("a request")
	for _, tt := range []struct {
		name string
		s    signer
		bad  string // part of the error
	}{
		{"P-256", signer{key: p256, usage: "SIGN_VERIFY", by: "ECDSA_SHA_256"}, ""},
		{"Ed25519", signer{key: edwards, usage: "SIGN_VERIFY", by: "ED25519_SHA_512"}, ""},
		{"another curve", signer{key: p384, usage: "SIGN_VERIFY", by: "ECDSA_SHA_384"}, "want one for SIGN_VERIFY"},
		{"key agreement", signer{key: p256, usage: "KEY_AGREEMENT", by: "ECDSA_SHA_256"}, "want one for SIGN_VERIFY"},
		{"an alias", signer{key: p256, usage: "SIGN_VERIFY", by: "ECDSA_SHA_256", wrong: second}, "not an alias"},
		{"disabled", signer{key: p256, fail: true}, "the key is disabled"},
	} {
		c := signWith(t, &tt.s)
		public, err := c.Public(t.Context(), first)
		if tt.bad != "" {
			if err == nil || !strings.Contains(err.Error(), tt.bad) {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		signature, err := c.Sign(t.Context(), first, public, message)
		good := false
		switch k := public.(type) {
		case *ecdsa.PublicKey:
			sum := sha256.Sum256(message)
			good = ecdsa.VerifyASN1(k, sum[:], signature)
		case ed25519.PublicKey:
			good = ed25519.Verify(k, message, signature)
		}
		if err != nil || !good {
			t.Errorf("%s: %v, the signature is good: %v", tt.name, err, good)
		}
		if _, err := c.Sign(t.Context(), first, public, make([]byte, 5000)); err == nil {
			t.Errorf("%s: signs more than KMS takes", tt.name)
		}
		tt.s.fail = true
		if _, err := c.Sign(t.Context(), first, public, message); err == nil || !strings.Contains(err.Error(), "disabled") {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
