package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/btcdecoded/holdfast/hostagent/queue"
	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/repository"
)

// listedHost is a host with what its signer lacks.
type listedHost struct {
	queue.Host
	Signers []limitedSigner `json:"signers,omitempty"` // that may sign less than agents of this version do
}

// limitedSigner is the signer of a host that was registered by an older version: parts of sources came since, and signers
// that are limited do not get them by themselves.
type limitedSigner struct {
	Key   string   `json:"key"`
	Lacks []string `json:"lacks"`
}

// limitedSigners returns, by host, the signers of agents that lack parts. What `host add` and `key add` gave to the same key
// one after the other counts together.
func limitedSigners(access repository.Access) map[string][]limitedSigner {
	type who struct{ host, key string }
	has := map[who][]string{}
	var order []who
	for _, s := range access.Signers {
		w := who{s.Host, s.Key}
		if has[w] == nil {
			order = append(order, w)
		}
		if s.Only == nil {
			has[w] = append(has[w], keyring.HostParts()...)
		}
		has[w] = append(has[w], s.Only...)
	}
	out := map[string][]limitedSigner{}
	for _, w := range order {
		if w.host == keyring.AllHosts || !slices.Contains(has[w], "snapshots") {
			continue // not an agent's
		}
		lacks := slices.DeleteFunc(keyring.HostParts(), func(part string) bool { return slices.Contains(has[w], part) })
		if len(lacks) > 0 {
			out[w.host] = append(out[w.host], limitedSigner{w.key, lacks})
		}
	}
	return out
}

// withSigners adds to the hosts what their signers lack, where a repository is named. One that can't be opened is told, and
// is no reason not to list the hosts.
func (a *app) withSigners(ctx context.Context, hosts []queue.Host) []listedHost {
	out := make([]listedHost, 0, len(hosts))
	limited := map[string][]limitedSigner{}
	if _, err := a.address(); err != nil {
		a.note("no repository is named: whether the hosts' signers are up to date is not known")
	} else if repo, err := a.open(ctx); err != nil {
		a.warn("whether the hosts' signers are up to date is not known: %v", err)
	} else {
		limited = limitedSigners(repo.Access())
	}
	for _, h := range hosts {
		out = append(out, listedHost{h, limited[h.Name]})
	}
	return out
}

// toDo is what brings a host up to date; empty: it is.
func (h *listedHost) toDo() string {
	parts := make([]string, 0, len(h.Signers))
	for _, s := range h.Signers {
		parts = append(parts, fmt.Sprintf("may not sign %s: holdfast host add %s --signer %s", strings.Join(s.Lacks, ", "), h.Name, s.Key))
	}
	return strings.Join(parts, "; ")
}
