package cli_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"
)

// sshkey makes a key as ssh-keygen does, and sets a variable to the line of its public key: `sshkey FILE VARIABLE
// [PASSPHRASE]`.
func sshkey(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: sshkey FILE VARIABLE [PASSPHRASE]")
	}
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte(args[0][:1]), ed25519.SeedSize))
	block, err := ssh.MarshalPrivateKey(key, "")
	if len(args) == 3 {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(args[2]))
	}
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), pem.EncodeToMemory(block), 0o600))
	public, err := ssh.NewPublicKey(key.Public())
	ts.Check(err)
	ts.Setenv(args[1], strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public))))
}
