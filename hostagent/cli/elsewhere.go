package cli

import (
	"context"
	"sync"

	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
)

// alsoFlag adds the flag that names further places to read from.
func (a *app) alsoFlag(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&a.also, "also", nil,
		"read from this copy, a `REPOSITORY`, what is damaged or missing here (repeatable; default: the other places of the policy)")
}

// alsoRead lets a command that gives content back take what is damaged or missing here from the other places of the
// repository: those of --also, or else those of the policy, if the repository is one of them. What is proven there is
// good wherever it comes from; that the repository needs repair is said.
func (a *app) alsoRead(repo *repository.Repository) error {
	address, err := a.address()
	if err != nil {
		return err
	}
	addresses := a.also
	if len(addresses) == 0 {
		if addresses, err = a.otherPlaces(address); err != nil {
			return err
		}
	}
	var places []repository.Place
	for _, to := range addresses {
		if samePlace(to, address) {
			continue
		}
		places = append(places, repository.Place{Name: to, Open: func(ctx context.Context) (objstore.Store, error) { return a.store(ctx, to) }})
	}
	var mu sync.Mutex
	told := map[string]bool{}
	repo.AlsoRead(places, func(e repository.Elsewhere) {
		mu.Lock()
		defer mu.Unlock()
		kind := e.Place
		if e.Err != nil {
			kind += " failed"
		}
		if told[kind] {
			return
		}
		told[kind] = true
		switch {
		case e.Err != nil:
			a.warn("%s is damaged here (%v), and can not be read from %s either: %v", e.Key, e.Fault, e.Place, e.Err)
		case e.Place == "":
			a.warn("%s came altered (%v), and was in order when it was read again: look after the disk or the network; `holdfast verify` reads everything", e.Key, e.Fault)
		default:
			a.warn("%s is damaged here (%v): what is needed of it, and of what else may be, comes from %s; `holdfast repair --from %s` puts it back", e.Key, e.Fault, e.Place, e.Place)
		}
	})
	return nil
}

// otherPlaces are the places of the policy's repository, if the address is one of them.
func (a *app) otherPlaces(address string) ([]string, error) {
	p, err := a.loadPolicy()
	if err != nil || p == nil {
		return nil, err
	}
	all := append([]string{p.Repository.Primary}, p.Repository.Copies...)
	member := false
	var others []string
	for _, place := range all {
		switch {
		case place == "":
		case samePlace(place, address):
			member = true
		default:
			others = append(others, place)
		}
	}
	if !member {
		return nil, nil
	}
	return others, nil
}
