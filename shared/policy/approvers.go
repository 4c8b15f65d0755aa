package policy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Approver is one person who may ask for and approve restores that come over the queue.
type Approver struct {
	Name string `json:"name"` // what messages call the person
	Key  string `json:"key"`  // a line of an SSH public key: ssh-ed25519 AAAA… comment, or ecdsa-sha2-nistp256 AAAA…
}

// Public returns the approver's key, as [ParseSSHKey] does.
func (a Approver) Public() (crypto.PublicKey, error) { return ParseSSHKey(a.Key) }

// Restore says what restores that come over the queue may do on a host. Those that somebody runs on the host itself by
// `holdfast restore` are not bound by it.
type Restore struct {
	Targets []string `json:"targets,omitempty"` // absolute directories below which a restore may write; none: nowhere
	InPlace bool     `json:"in_place"`          // a restore may write over the original
}

// How OpenSSH calls the keys that approvers may have (RFC 8709; RFC 5656, section 3.1), and the curve of the second.
const (
	SSHEd25519 = "ssh-ed25519"
	SSHECDSA   = "ecdsa-sha2-nistp256"
	SSHCurve   = "nistp256"
)

var errSSHKey = errors.New("want the line of a public key of SSH, ssh-ed25519 AAAA… or ecdsa-sha2-nistp256 AAAA…")

// ParseSSHKey parses a line such as OpenSSH keeps in id_ed25519.pub: the name of the algorithm, the key in base64, and
// a comment that means nothing. The key is an [ed25519.PublicKey] or an [*ecdsa.PublicKey] on P-256.
func ParseSSHKey(line string) (crypto.PublicKey, error) {
	if fields := strings.Fields(line); len(fields) >= 2 {
		wire, err := base64.StdEncoding.Strict().DecodeString(fields[1])
		if name, key, kerr := parseWireKey(wire); err == nil && kerr == nil && name == fields[0] {
			return key, nil
		}
	}
	if strings.Contains(line, "PRIVATE KEY") {
		return nil, fmt.Errorf("a private key: %w; take the line of the .pub file beside it", errSecret)
	}
	return nil, errSSHKey
}

// ParseWireKey parses a public key as SSH sends it, which is what the base64 of a line holds.
func ParseWireKey(wire []byte) (crypto.PublicKey, error) {
	_, key, err := parseWireKey(wire)
	return key, err
}

func parseWireKey(wire []byte) (name string, key crypto.PublicKey, err error) {
	text, rest, ok := sshString(wire)
	if !ok {
		return "", nil, errSSHKey
	}
	switch name = string(text); name {
	case SSHEd25519: // RFC 8709, section 4
		k, rest, ok := sshString(rest)
		if !ok || len(rest) > 0 || len(k) != ed25519.PublicKeySize {
			return "", nil, errSSHKey
		}
		return name, ed25519.PublicKey(k), nil
	case SSHECDSA: // RFC 5656, section 3.1
		curve, rest, ok := sshString(rest)
		point, rest, ok2 := sshString(rest)
		if !ok || !ok2 || len(rest) > 0 || string(curve) != SSHCurve {
			return "", nil, errSSHKey
		}
		k, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
		if err != nil {
			return "", nil, errSSHKey
		}
		return name, k, nil
	}
	return "", nil, errSSHKey
}

// WireKey writes a public key as SSH sends it; see [ParseWireKey].
func WireKey(key crypto.PublicKey) ([]byte, error) {
	put := func(list ...[]byte) (b []byte) {
		for _, s := range list {
			b = binary.BigEndian.AppendUint32(b, uint32(len(s))) //nolint:gosec // all are short
			b = append(b, s...)
		}
		return b
	}
	switch k := key.(type) {
	case ed25519.PublicKey:
		if len(k) == ed25519.PublicKeySize {
			return put([]byte(SSHEd25519), k), nil
		}
	case *ecdsa.PublicKey:
		if k != nil && k.Curve == elliptic.P256() {
			point, err := k.Bytes()
			if err != nil {
				return nil, err
			}
			return put([]byte(SSHECDSA), []byte(SSHCurve), point), nil
		}
	}
	return nil, errors.New("neither an Ed25519 nor an ECDSA key on P-256")
}

// SSHLine writes a public key as a line; see [ParseSSHKey].
func SSHLine(key crypto.PublicKey) (string, error) {
	wire, err := WireKey(key)
	if err != nil {
		return "", err
	}
	name, _, _ := sshString(wire)
	return string(name) + " " + base64.StdEncoding.EncodeToString(wire), nil
}

func sshString(b []byte) (s, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4) {
		return nil, nil, false
	}
	return b[4 : 4+n], b[4+n:], true
}

func checkSSHKey(s string) error {
	_, err := ParseSSHKey(s)
	return err
}

func checkApproverName(s string) error {
	if !servicePattern.MatchString(s) {
		return fmt.Errorf("name %q: want letters, digits, . _ -, at most 63", shorten(s))
	}
	return nil
}

func checkTarget(s string) error {
	if s == "/" {
		return errors.New(`target "/": everything lies below it; name a directory of its own`)
	}
	return checkPath(s)
}

func (d *decoder) approvers(n ast.Node, list *[]Approver) {
	d.list(n, func(_ int, v ast.Node) {
		var a Approver
		d.mapping(
			v,
			field{"name", d.str(&a.Name, checkApproverName)},
			field{"key", d.str(&a.Key, checkSSHKey)},
		)
		*list = append(*list, a)
	})
}

func (d *decoder) restore(n ast.Node, r *Restore) {
	d.mapping(
		n,
		field{"targets", d.strs(&r.Targets, checkTarget)},
		field{"in_place", d.boolean(&r.InPlace)},
	)
}

// checkApprovers refuses two approvers who are one: whoever has a key under two names could approve what he asks for.
func (d *decoder) checkApprovers(list []Approver) {
	names, keys := map[string]bool{}, map[string]bool{}
	for i, a := range list {
		at := fmt.Sprintf("approvers.%d", i)
		key := ""
		if k, err := ParseSSHKey(a.Key); err == nil {
			wire, _ := WireKey(k)
			key = string(wire)
		}
		switch {
		case d.wrong(at):
		case a.Name == "" || a.Key == "":
			d.failAt(at, "", "an approver has a name and a key")
		case names[a.Name]:
			d.failAt(at, "", "approver %q comes twice", a.Name)
		case key != "" && keys[key]:
			d.failAt(at, "each person has a key of their own", "approver %q has the key of another", a.Name)
		}
		names[a.Name], keys[key] = true, true
	}
}
