package e2e_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// approver is a person with an SSH key.
type approver struct {
	public  string // as in a policy
	private string // as in a file
	key     ed25519.PrivateKey
}

func newApprover(t *testing.T) *approver {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	line, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	return &approver{key: private, public: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(line))), private: string(pem.EncodeToMemory(block))}
}
