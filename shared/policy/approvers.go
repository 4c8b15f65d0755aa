package policy

import (
	"crypto/ed25519"
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
	Key  string `json:"key"`  // a line of an SSH public key: ssh-ed25519 AAAA… comment
}

// Public returns the approver's key.
func (a Approver) Public() (ed25519.PublicKey, error) { return ParseSSHKey(a.Key) }

// Restore says what restores that come over the queue may do on a host. Those that somebody runs on the host itself by
// `holdfast restore` are not bound by it.
type Restore struct {
	Targets []string `json:"targets,omitempty"` // absolute directories below which a restore may write; none: nowhere
	InPlace bool     `json:"in_place"`          // a restore may write over the original
}

// sshEd25519 is how OpenSSH calls keys of Ed25519 (RFC 8709).
const sshEd25519 = "ssh-ed25519"

var errSSHKey = errors.New("want the line of an Ed25519 public key of SSH: ssh-ed25519 AAAA…")

// ParseSSHKey parses a line such as OpenSSH keeps in id_ed25519.pub: the name of the algorithm, the key in base64, and
// a comment that means nothing.
func ParseSSHKey(line string) (ed25519.PublicKey, error) {
	fields := strings.Fields(line)
	if len(fields) < 2 || fields[0] != sshEd25519 {
		if strings.Contains(line, "PRIVATE KEY") {
			return nil, fmt.Errorf("a private key: %w; take the line of the .pub file beside it", errSecret)
		}
		return nil, errSSHKey
	}
	wire, err := base64.StdEncoding.Strict().DecodeString(fields[1])
	if err != nil {
		return nil, errSSHKey
	}
	// RFC 8709, section 4: two strings, each a length of four bytes and its bytes.
	name, rest, ok := sshString(wire)
	key, rest, ok2 := sshString(rest)
	if !ok || !ok2 || len(rest) > 0 || string(name) != sshEd25519 || len(key) != ed25519.PublicKeySize {
		return nil, errSSHKey
	}
	return ed25519.PublicKey(key), nil
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
		key, err := ParseSSHKey(a.Key)
		switch {
		case d.wrong(at):
		case a.Name == "" || a.Key == "":
			d.failAt(at, "", "an approver has a name and a key")
		case names[a.Name]:
			d.failAt(at, "", "approver %q comes twice", a.Name)
		case err == nil && keys[string(key)]:
			d.failAt(at, "each person has a key of their own", "approver %q has the key of another", a.Name)
		}
		names[a.Name], keys[string(key)] = true, true
	}
}
