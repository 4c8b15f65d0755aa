package keyring

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
)

// maxIdentity bounds an identity file in bytes.
const maxIdentity = 1 << 20

// Identity is a parsed identity file: secret keys that open data keys, at most one secret signer, and the signers that
// its owner trusts from the beginning. An identity with only trust can check everything and open nothing.
type Identity struct {
	keys   []ageKey
	signer *Signer // nil: none
	trust  []TrustedSigner
	kms    KMS // nil: none
}

type ageKey struct {
	secret    age.Identity
	line      string // as in the file
	recipient string
}

// NewIdentity returns a new random identity: one age key, a signer, and trust in this signer for all hosts.
func NewIdentity() (*Identity, error) {
	secret, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("make identity: %w", err)
	}
	signer := NewSigner()
	return &Identity{
		keys:   []ageKey{{secret: secret, line: secret.String(), recipient: secret.Recipient().String()}},
		signer: signer,
		trust:  []TrustedSigner{{Key: signer.Public(), Host: AllHosts}},
	}, nil
}

// ParseIdentity parses the text of an identity file. No error repeats a secret.
func ParseIdentity(r io.Reader) (*Identity, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxIdentity+1))
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	if len(text) > maxIdentity {
		return nil, fmt.Errorf("parse identity: more than %d bytes", maxIdentity)
	}
	id := &Identity{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxIdentity+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if err := id.parseLine(line); err != nil {
			return nil, fmt.Errorf("parse identity: line %d: %w", n, err)
		}
	}
	if len(id.keys) == 0 && id.signer == nil && len(id.trust) == 0 {
		return nil, errors.New("parse identity: no AGE-SECRET-KEY, HOLDFAST-SIGNER or trust line in it")
	}
	return id, nil
}

func (id *Identity) parseLine(line string) error {
	switch {
	case strings.HasPrefix(line, "AGE-SECRET-KEY-"):
		key, err := parseAgeKey(line)
		if err != nil {
			return err
		}
		if id.owns(key.recipient) {
			return fmt.Errorf("the secret key of %s comes twice", short(key.recipient))
		}
		id.keys = append(id.keys, key)
		return nil
	case strings.HasPrefix(line, signerPrefix):
		signer, err := parseSigner(line)
		if err != nil {
			return fmt.Errorf("signer: %w", err)
		}
		if id.signer != nil {
			return errors.New("a second signer")
		}
		id.signer = signer
		return nil
	}
	fields := strings.Fields(line)
	if fields[0] != "trust" {
		return errors.New("want AGE-SECRET-KEY-…, HOLDFAST-SIGNER-…, trust KEY HOST, or # and a comment")
	}
	return id.parseTrust(fields[1:])
}

func (id *Identity) parseTrust(fields []string) error {
	if len(fields) != 2 {
		return errors.New("want trust, the signer's public key, and a host or *")
	}
	key, err := ParsePublicKey(fields[0])
	if err != nil {
		return err
	}
	if fields[1] != AllHosts {
		if err := checkHost(fields[1]); err != nil {
			return err
		}
	}
	id.addTrust(TrustedSigner{Key: key, Host: fields[1]})
	return nil
}

func (id *Identity) addTrust(t TrustedSigner) {
	for _, have := range id.trust {
		if have == t {
			return
		}
	}
	id.trust = append(id.trust, t)
}

// parseAgeKey parses a secret key of age: X25519, or the post-quantum hybrid.
func parseAgeKey(line string) (ageKey, error) {
	if strings.HasPrefix(line, "AGE-SECRET-KEY-PQ-") {
		secret, err := age.ParseHybridIdentity(line)
		if err != nil {
			return ageKey{}, errors.New("secret key of age: mistyped, or not whole")
		}
		return ageKey{secret: secret, line: line, recipient: secret.Recipient().String()}, nil
	}
	secret, err := age.ParseX25519Identity(line)
	if err != nil {
		return ageKey{}, errors.New("secret key of age: mistyped, or not whole")
	}
	return ageKey{secret: secret, line: line, recipient: secret.Recipient().String()}, nil
}

// LoadIdentity reads an identity file. It refuses one with secrets that others than its owner can read ([ErrPermissions]),
// and any that others can write.
func LoadIdentity(path string) (*Identity, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	id, err := ParseIdentity(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	mask := fs.FileMode(0o077)
	if !id.secret() {
		mask = 0o022
	}
	if mode := info.Mode().Perm(); mode&mask != 0 {
		return nil, fmt.Errorf("identity %s: %w (mode %04o); hint: chmod 600 %s", path, ErrPermissions, mode, path)
	}
	return id, nil
}

func (id *Identity) secret() bool { return len(id.keys) > 0 || id.signer != nil }

// WriteFile writes the identity to a new file that only its owner can read, and makes it durable. It never overwrites
// ([fs.ErrExist]): a lost identity is lost data.
func (id *Identity) WriteFile(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	defer func() {
		// Whatever is there now is not whole: without this, the next try would find the file in its way.
		if err != nil {
			_ = os.Remove(path)
			err = fmt.Errorf("write identity: %w", err)
		}
	}()
	_, err = f.WriteString(id.text())
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	// A crash here would lose the name, with a repository that may be made already.
	return syncDirectory(filepath.Dir(path))
}

func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}

// text returns the identity file, secrets and all.
func (id *Identity) text() string {
	var b strings.Builder
	b.WriteString("# Holdfast identity. Keep a copy offline: without it, nobody can read the backups.\n")
	for _, k := range id.keys {
		fmt.Fprintf(&b, "# recipient %s\n%s\n", k.recipient, k.line)
	}
	if id.signer != nil {
		fmt.Fprintf(&b, "# signer %s\n%s\n", id.signer.Public(), id.signer.secret())
	}
	for _, t := range id.trust {
		fmt.Fprintf(&b, "trust %s %s\n", t.Key, t.Host)
	}
	return b.String()
}

// Public returns the identity without its secrets, in the form of an identity file: it parses, can check everything and
// open nothing.
func (id *Identity) Public() string {
	var b strings.Builder
	for _, k := range id.keys {
		fmt.Fprintf(&b, "# recipient %s\n", k.recipient)
	}
	if id.signer != nil {
		fmt.Fprintf(&b, "# signer %s\n", id.signer.Public())
	}
	for _, t := range id.trust {
		fmt.Fprintf(&b, "trust %s %s\n", t.Key, t.Host)
	}
	return b.String()
}

// Format implements [fmt.Formatter]: whatever the verb, no secret is shown.
func (id *Identity) Format(f fmt.State, _ rune) {
	_, _ = f.Write([]byte(id.String()))
}

func (id *Identity) String() string {
	if id == nil {
		return "no identity"
	}
	return fmt.Sprintf("identity with %d secret keys", len(id.keys))
}

// GoString is String.
func (id *Identity) GoString() string { return id.String() }

// MarshalJSON returns what String does, in quotes: no secret.
func (id *Identity) MarshalJSON() ([]byte, error) { return []byte(`"` + id.String() + `"`), nil }

// Recipients returns the public keys of the identity's secret keys.
func (id *Identity) Recipients() []Recipient {
	list := make([]Recipient, len(id.keys))
	for i := range id.keys {
		list[i] = Recipient{Type: TypeAge, Recipient: id.keys[i].recipient}
	}
	return list
}

// Signer returns the identity's signer, if it has one.
func (id *Identity) Signer() (*Signer, bool) { return id.signer, id.signer != nil }

// Trusted returns the signers that the identity pins.
func (id *Identity) Trusted() []TrustedSigner { return append([]TrustedSigner(nil), id.trust...) }

// Trust returns a new [Trust] in the signers that the identity pins.
func (id *Identity) Trust() *Trust {
	t := &Trust{}
	for _, s := range id.trust {
		t.Add(s.Key, s.Host)
	}
	return t
}
