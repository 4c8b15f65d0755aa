package cli

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"

	"golang.org/x/crypto/ssh"
	"golang.org/x/term"
)

// errNoTerminal says that nobody can be asked for a passphrase.
var errNoTerminal = errors.New("it has a passphrase, and there is no terminal to ask for it")

// parseSSHKey parses a private key of SSH, which must be one of Ed25519. ask is called for its passphrase.
func parseSSHKey(text []byte, ask func() ([]byte, error)) (ed25519.PrivateKey, error) {
	raw, err := ssh.ParseRawPrivateKey(text)
	var sealed *ssh.PassphraseMissingError
	if errors.As(err, &sealed) {
		passphrase, aerr := ask()
		if aerr != nil {
			return nil, aerr
		}
		raw, err = ssh.ParseRawPrivateKeyWithPassphrase(text, passphrase)
	}
	if err != nil {
		return nil, errors.New("not a private key of SSH, or another passphrase") // no error repeats what is in the file
	}
	switch key := raw.(type) {
	case *ed25519.PrivateKey:
		return *key, nil
	case ed25519.PrivateKey:
		return key, nil
	}
	return nil, errors.New("not an Ed25519 key")
}

// passphrase asks at the terminal.
func (a *app) passphrase(path string) ([]byte, error) {
	f, ok := a.stdio.In.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, errNoTerminal
	}
	fmt.Fprintf(a.stdio.Err, "passphrase of %s: ", path)
	defer fmt.Fprintln(a.stdio.Err)
	return term.ReadPassword(int(f.Fd()))
}
