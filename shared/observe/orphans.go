package observe

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// Orphans lists the sources that are in the repository and not in the policy, ordered by name: two levels of the listing,
// a request for each host.
func (f *Fleet) Orphans(ctx context.Context) ([]snapshot.Source, error) {
	var hosts []string
	store := f.Watch.Repo.Store()
	f.Watch.requests.Add(1)
	err := objstore.Prefixes(ctx, store, layout.Prefix, func(name string) error {
		hosts = append(hosts, name)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list hosts: %w", err)
	}
	f.Watch.requests.Add(int64(len(hosts)))
	var mu sync.Mutex
	var out []snapshot.Source // guarded by mu
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(f.parallel())
	for _, host := range hosts {
		g.Go(func() error {
			err := objstore.Prefixes(gctx, store, layout.Prefix+host+"/", func(name string) error {
				src := snapshot.Source{Host: host, Name: name}
				if _, err := f.Policy.Lookup(host, name); err == nil || src.Check() != nil {
					return nil
				}
				mu.Lock()
				defer mu.Unlock()
				out = append(out, src)
				return nil
			})
			if err != nil {
				return fmt.Errorf("list sources of %s: %w", host, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b snapshot.Source) int { return strings.Compare(a.String(), b.String()) })
	return out, nil
}
