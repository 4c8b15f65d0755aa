package keyring

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// AllHosts stands for every host, and for what concerns the repository as a whole.
const AllHosts = "*"

// CloudReceipts is the part of a source that a signer for a single host may not write: the host would speak for those
// who check it.
const CloudReceipts = "receipts/cloud"

// TrustedSigner is one line of trust: the key may speak for the host.
type TrustedSigner struct {
	Key  PublicKey `json:"key"`
	Host string    `json:"host"` // or AllHosts
}

// Grant is a line of trust with its limits.
type Grant struct {
	TrustedSigner
	// Only limits the key to these parts of sources: the first components of keys below v1/<host>/<source>/, such as
	// "condemned" or [CloudReceipts]. Nil: to nothing in particular; empty: to nothing at all.
	Only []string `json:"only,omitzero"`
}

// ScopedParts are the parts of a source that have signed documents, and to which a signer can be limited.
func ScopedParts() []string {
	return []string{"condemned", "damaged", "expired", "keys", "log", "marks", CloudReceipts, "receipts/host", "snapshots"}
}

// HostParts are the parts of a source that an agent needs to sign. Without the others it can neither announce nor record
// removals, nor end a legal hold.
func HostParts() []string { return []string{"damaged", "keys", "log", "receipts/host", "snapshots"} }

// CheckOnly checks the limits that a new signer is given.
func CheckOnly(only []string) error {
	for i, part := range only {
		if !slices.Contains(ScopedParts(), part) {
			return fmt.Errorf("part %q of a source: want one of %s", short(part), strings.Join(ScopedParts(), ", "))
		}
		if slices.Contains(only[:i], part) {
			return fmt.Errorf("part %q of a source comes twice", part)
		}
	}
	if only != nil && len(only) == 0 {
		return fmt.Errorf("a signer that is limited to nothing: want some of %s", strings.Join(ScopedParts(), ", "))
	}
	return nil
}

// allows reports whether the grant covers an object.
func (g *Grant) allows(o object) bool {
	switch {
	case g.Host != AllHosts && g.Host != o.host:
		return false
	case g.Only == nil:
		return g.Host == AllHosts || !within(o.part, CloudReceipts)
	}
	return slices.ContainsFunc(g.Only, func(part string) bool { return within(o.part, part) })
}

// within reports whether the rest of a key lies in a part of a source.
func within(rest, part string) bool {
	return part != "" && strings.HasPrefix(rest, part+"/")
}

// Trust says which keys may speak for which hosts. The zero value trusts nobody. It is safe for concurrent use.
type Trust struct {
	mu     sync.RWMutex
	grants map[PublicKey][]Grant // guarded by mu
}

// Add trusts the key for the host, or for [AllHosts].
func (t *Trust) Add(key PublicKey, host string) {
	t.Grant(Grant{TrustedSigner: TrustedSigner{Key: key, Host: host}})
}

// Grant trusts a key within limits. What a key may by any of its grants, it may.
func (t *Trust) Grant(g Grant) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.grants == nil {
		t.grants = make(map[PublicKey][]Grant)
	}
	have := t.grants[g.Key]
	if slices.ContainsFunc(have, func(h Grant) bool { return h.same(&g) }) {
		return
	}
	g.Only = slices.Clone(g.Only)
	t.grants[g.Key] = append(have, g)
}

func (g *Grant) same(o *Grant) bool {
	return g.TrustedSigner == o.TrustedSigner && (g.Only == nil) == (o.Only == nil) && slices.Equal(g.Only, o.Only)
}

// Allows reports whether the key may sign the object with this key in the store. For what concerns the whole
// repository, only a key may that is trusted for [AllHosts] without limits. A key that is no document's is refused.
func (t *Trust) Allows(key PublicKey, objectKey string) bool {
	o, err := parseObject(objectKey)
	return err == nil && t.allows(key, o)
}

func (t *Trust) allows(key PublicKey, o object) bool {
	if t == nil {
		return false
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.ContainsFunc(t.grants[key], func(g Grant) bool { return g.allows(o) })
}

// List returns all lines of trust, sorted by host, key and limits.
func (t *Trust) List() []Grant {
	if t == nil {
		return nil
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	list := []Grant{}
	for _, grants := range t.grants {
		list = append(list, grants...)
	}
	slices.SortFunc(list, func(a, b Grant) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Key.String(), b.Key.String()), slices.Compare(a.Only, b.Only))
	})
	return list
}

// object is what decides who may sign an object.
type object struct {
	host string // AllHosts: it concerns the whole repository
	part string // of the key, below the source; empty if there is no source
}

func (o object) String() string {
	if o.host == AllHosts || o.part == "" {
		return "host " + o.host
	}
	part := o.part
	for _, p := range ScopedParts() {
		if within(o.part, p) {
			part = p
		}
	}
	return "host " + o.host + ", " + short(part)
}

// parseObject takes the key of a signed document apart.
func parseObject(key string) (object, error) {
	rest, ok := strings.CutPrefix(key, "v1/")
	if ok && rest == "repository.json" {
		return object{host: AllHosts}, nil
	}
	host, rest, more := strings.Cut(rest, "/")
	switch {
	case !ok || !more || rest == "":
	case host == "access":
		return object{host: AllHosts}, nil
	case checkHost(host) == nil:
		_, part, _ := strings.Cut(rest, "/")
		return object{host: host, part: part}, nil
	}
	return object{}, fmt.Errorf("%w: no document has the key %q", ErrUntrusted, short(key))
}

func checkHost(host string) error {
	if err := (snapshot.Source{Host: host, Name: "x"}).Check(); err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	return nil
}
