package keyring

import (
	"fmt"
	"sort"
	"sync"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// AllHosts stands for every host, and for what concerns the repository as a whole.
const AllHosts = "*"

// TrustedSigner is one line of trust: the key may speak for the host.
type TrustedSigner struct {
	Key  PublicKey `json:"key"`
	Host string    `json:"host"` // or AllHosts
}

// Trust says which keys may speak for which hosts. The zero value trusts nobody. It is safe for concurrent use.
type Trust struct {
	mu   sync.RWMutex
	keys map[TrustedSigner]bool // guarded by mu
}

// Add trusts the key for the host, or for [AllHosts].
func (t *Trust) Add(key PublicKey, host string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.keys == nil {
		t.keys = make(map[TrustedSigner]bool)
	}
	t.keys[TrustedSigner{Key: key, Host: host}] = true
}

// Allows reports whether the key may speak for the host; for [AllHosts] only a key that is trusted for all may.
func (t *Trust) Allows(key PublicKey, host string) bool {
	if t == nil {
		return false
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.keys[TrustedSigner{key, host}] || t.keys[TrustedSigner{key, AllHosts}]
}

// List returns all lines of trust, sorted by host and key.
func (t *Trust) List() []TrustedSigner {
	if t == nil {
		return nil
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	list := make([]TrustedSigner, 0, len(t.keys))
	for s := range t.keys {
		list = append(list, s)
	}
	sort.Slice(list, func(i, j int) bool {
		if list[i].Host != list[j].Host {
			return list[i].Host < list[j].Host
		}
		return list[i].Key.String() < list[j].Key.String()
	})
	return list
}

func checkHost(host string) error {
	if err := (snapshot.Source{Host: host, Name: "x"}).Check(); err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	return nil
}
