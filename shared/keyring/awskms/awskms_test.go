package awskms_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/keyring/awskms"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/seal"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const (
	first  = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	second = "arn:aws:kms:eu-west-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
)

// service answers Encrypt and Decrypt as KMS does: the context must be exactly that of the encryption.
type service struct {
	t      *testing.T
	broken atomic.Bool // answers nothing but errors
	calls  atomic.Int32
	wrong  string // the key by which it says it answers
}

type request struct {
	KeyID             string `json:"KeyId"`
	Plaintext         []byte
	CiphertextBlob    []byte
	EncryptionContext map[string]string
}

// box is what the service encrypts to: legible, for a test.
type box struct {
	Key     string
	Context map[string]string
	Plain   []byte
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.calls.Add(1)
	fail := func(code string) {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"__type":%q,"message":"no"}`, code)
	}
	var in request
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || s.broken.Load() {
		fail("KMSInvalidStateException")
		return
	}
	if region := strings.Split(in.KeyID, ":")[3]; !strings.Contains(r.Header.Get("Authorization"), "/"+region+"/kms/") {
		s.t.Errorf("the key of %s was asked for elsewhere", region)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	key := in.KeyID
	if s.wrong != "" {
		key = s.wrong
	}
	switch target := r.Header.Get("X-Amz-Target"); target {
	case "TrentService.Encrypt":
		b, _ := json.Marshal(box{in.KeyID, in.EncryptionContext, in.Plaintext})
		_ = json.NewEncoder(w).Encode(map[string]any{"KeyId": key, "CiphertextBlob": b})
	case "TrentService.Decrypt":
		var b box
		if json.Unmarshal(in.CiphertextBlob, &b) != nil || b.Key != in.KeyID || !maps.Equal(b.Context, in.EncryptionContext) {
			fail("InvalidCiphertextException")
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"KeyId": key, "Plaintext": b.Plain})
	default:
		s.t.Errorf("request %s", target)
		fail("UnknownOperationException")
	}
}

func start(t *testing.T) (*service, *awskms.Client) {
	t.Helper()
	s := &service{t: t}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, awskms.New(awskms.Options{Endpoint: server.URL, Timeout: time.Minute, Config: &aws.Config{
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "a", SecretAccessKey: "b"}, nil
		}),
		RetryMaxAttempts: 1,
	}})
}

func about(host, name string) seal.Context {
	return seal.Context{Source: snapshot.Source{Host: host, Name: name}}
}

func identity(t *testing.T, text string) *keyring.Identity {
	t.Helper()
	id, err := keyring.ParseIdentity(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestWrap opens in the context in which it was wrapped, and in no other.
func TestWrap(t *testing.T) {
	s, client := start(t)
	id := identity(t, "trust "+keyring.NewSigner().Public().String()+" *")
	key := seal.NewDataKey()
	var all []snapshot.Wrapped
	for _, arn := range []string{first, second} {
		r, err := keyring.ParseRecipient(arn)
		if err != nil || r.Type != keyring.TypeKMS {
			t.Fatal(r, err)
		}
		if _, err := id.Wrap(t.Context(), r, key, about("web", "app")); !errors.Is(err, keyring.ErrNoKMS) {
			t.Error(err)
		}
		id.UseKMS(client)
		wrapped, err := id.Wrap(t.Context(), r, key, about("web", "app"))
		if err != nil {
			t.Fatal(err)
		}
		var b box
		if err := json.Unmarshal(wrapped, &b); err != nil || !maps.Equal(b.Context, map[string]string{"host": "web", "source": "app"}) {
			t.Errorf("%v, %v", b.Context, err)
		}
		all = append(all, snapshot.Wrapped{Type: r.Type, Recipient: r.Recipient, Wrapped: wrapped})
		id.UseKMS(nil)
	}
	if _, err := id.Unwrap(t.Context(), all, about("web", "app")); !errors.Is(err, keyring.ErrNoIdentity) {
		t.Error(err)
	}
	id.UseKMS(client)
	for i := range all {
		if got, err := id.Unwrap(t.Context(), all[i:], about("web", "app")); err != nil || got != key {
			t.Errorf("%d: %v", i, err)
		}
	}
	for _, other := range []seal.Context{about("web", "db"), about("db", "app")} {
		if _, err := id.Unwrap(t.Context(), all, other); err == nil || !errors.Is(err, keyring.ErrNoIdentity) || !strings.Contains(err.Error(), "InvalidCiphertext") {
			t.Errorf("%s: %v", other.Source, err)
		}
	}
	// One region is down, or one entry exchanged: the other one opens it.
	broken := append([]snapshot.Wrapped{{Type: keyring.TypeKMS, Recipient: first, Wrapped: all[1].Wrapped}}, all[1:]...)
	if got, err := id.Unwrap(t.Context(), broken, about("web", "app")); err != nil || got != key {
		t.Error(err)
	}
	s.wrong = second + "x"
	if _, err := id.Unwrap(t.Context(), all, about("web", "app")); err == nil || !strings.Contains(err.Error(), "the answer is by key") {
		t.Error(err)
	}
}

// TestNoSecretInErrors fails in all ways and looks for the key in what is said.
func TestNoSecretInErrors(t *testing.T) {
	s, client := start(t)
	id := identity(t, "trust "+keyring.NewSigner().Public().String()+" *")
	id.UseKMS(client)
	key := seal.NewDataKey()
	r := keyring.Recipient{Type: keyring.TypeKMS, Recipient: first}
	check := func(what string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s: no error", what)
			return
		}
		text := fmt.Sprintf("%v %+v", err, err)
		for _, secret := range []string{base64.StdEncoding.EncodeToString(key[:]), string(key[:]), fmt.Sprintf("%x", key[:8])} {
			if strings.Contains(text, secret) {
				t.Errorf("%s: the error has the key", what)
			}
		}
	}
	s.broken.Store(true)
	_, err := id.Wrap(t.Context(), r, key, about("web", "app"))
	check("refused", err)
	s.broken.Store(false)
	s.wrong = "other"
	_, err = id.Wrap(t.Context(), r, key, about("web", "app"))
	check("another key", err)
	gone := awskms.New(awskms.Options{Endpoint: "http://127.0.0.1:1", Timeout: time.Second, Config: &aws.Config{RetryMaxAttempts: 1}})
	id.UseKMS(gone)
	_, err = id.Wrap(t.Context(), r, key, about("web", "app"))
	check("unreachable", err)
	if _, err := client.Encrypt(t.Context(), "not an arn", key[:], nil); err == nil {
		t.Error("no ARN passes")
	}
}

// TestBackup makes chains for age and for KMS in two regions, while one or both can't be reached, and restores by each.
func TestBackup(t *testing.T) {
	s, client := start(t)
	f := repotest.New(t)
	err := f.Repo.ChangeAccess(t.Context(), func(a *repository.Access) error {
		for _, arn := range []string{first, second} {
			a.Recipients = append(a.Recipients, repository.AccessRecipient{Type: keyring.TypeKMS, Recipient: arn})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Identity.UseKMS(client)
	f.Repo = f.Open(t, f.Store)
	tree := func(n uint64) repotest.Tree { return repotest.Tree{"/srv/a": repotest.Noise(n, 1000)} }
	entries := func(m *repository.Stored) int { return len(m.Keys[0].Wrapped) }

	if m := f.Backup(t, snapshot.Full, tree(1)); entries(m) != 3 {
		t.Errorf("%d entries", entries(m))
	}
	f.Now = f.Now.Add(time.Hour)
	s.broken.Store(true)
	if m := f.Backup(t, snapshot.Full, tree(2)); entries(m) != 1 {
		t.Errorf("%d entries without the service", entries(m))
	}
	f.Now = f.Now.Add(time.Hour)
	if m := f.Backup(t, snapshot.Incremental, tree(3)); entries(m) != 1 || m.Type != snapshot.Incremental {
		t.Errorf("%d entries, %s", entries(m), m.Type)
	}
	// It answers again: the chain gets what it lacked.
	s.broken.Store(false)
	f.Now = f.Now.Add(time.Hour)
	m := f.Backup(t, snapshot.Incremental, tree(4))
	if entries(m) != 3 || m.Type != snapshot.Incremental || len(repotest.Keys(f.Store, "/keys/"+m.Keys[0].Key)) != 3 {
		t.Errorf("%d entries, %v", entries(m), repotest.Keys(f.Store, "/keys/"))
	}
	f.CheckAll(t, f.Store)

	// A full that is killed while the service is away, then while it is there, then goes through.
	f.Now = f.Now.Add(time.Hour)
	for _, broken := range []bool{true, false, false} {
		s.broken.Store(broken)
		session, err := f.Repo.Begin(t.Context(), f.Options(snapshot.Full))
		if err != nil {
			t.Fatal(err)
		}
		if err := session.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if m := f.Backup(t, snapshot.Full, tree(5)); entries(m) != 3 {
		t.Errorf("%d entries", entries(m))
	}
	f.CheckAll(t, f.Store)

	// By KMS alone, as a role that restores does: also the snapshot that was made without it.
	signer, _ := f.Identity.Signer()
	by := identity(t, "trust "+signer.Public().String()+" *")
	by.UseKMS(client)
	repo := repotest.OpenAs(t, f.Store, by)
	for n := uint64(1); n <= 5; n++ {
		m, err := repo.Manifest(t.Context(), f.ID(n))
		if err != nil {
			t.Fatal(err)
		}
		got, err := repotest.Restore(t.Context(), repo, m)
		if err != nil || !bytes.Equal(got["/srv/a"], tree(n)["/srv/a"]) {
			t.Errorf("%d: %v", n, err)
		}
	}
	// By age alone, with the service gone for good.
	calls := s.calls.Load()
	s.broken.Store(true)
	f.CheckAll(t, f.Store)
	if s.calls.Load() != calls {
		t.Error("the offline path asks the service")
	}
	if sum := sha256.Sum256([]byte("kms:" + first)); keyring.Recipient.ID(keyring.Recipient{Type: "kms", Recipient: first}) != fmt.Sprintf("%x", sum[:16]) {
		t.Error("recipient id")
	}
}

// TestAgeIsRequired keeps the way that needs no service.
func TestAgeIsRequired(t *testing.T) {
	f := repotest.New(t)
	err := f.Repo.ChangeAccess(t.Context(), func(a *repository.Access) error {
		a.Recipients = []repository.AccessRecipient{{Type: keyring.TypeKMS, Recipient: first}}
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "age") {
		t.Error(err)
	}
}
