package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/btcdecoded/holdfast/hostagent/restorer"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// ownPlace is one place that belongs to this program.
type ownPlace struct{ what, path string }

// ownPlaces are the places of this program on this host that no restore removes: repositories, whichever of them this
// command uses, the state directory and the identity.
func (a *app) ownPlaces() ([]ownPlace, error) {
	places := []ownPlace{{"the state directory", a.statePath()}, {"the identity", a.identityPath()}}
	if a.proving {
		places = places[1:]
	}
	// The host's own identity is kept also when another opens the repository, such as the offline one.
	if host := a.hostIdentityPath(); host != a.identityPath() && present(host) {
		places = append(places, ownPlace{"the identity", host})
	}
	addresses := []string{a.flags.repository}
	if v, ok := a.env("HOLDFAST_REPOSITORY"); ok {
		addresses = append(addresses, v)
	}
	p, err := a.loadPolicy()
	if err != nil {
		return nil, err // it may name a repository that a restore would write into
	}
	if p != nil {
		addresses = append(append(addresses, p.Repository.Primary), p.Repository.Copies...)
	}
	for _, address := range addresses {
		if address == "" {
			continue
		}
		if dir, ok := localPath(address); ok {
			places = append(places, ownPlace{"the repository", dir})
		}
	}
	var out []ownPlace
	for _, p := range places {
		if abs, err := filepath.Abs(p.path); err == nil && !slices.Contains(out, ownPlace{p.what, abs}) {
			out = append(out, ownPlace{p.what, abs})
		}
	}
	return out, nil
}

func present(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// keepPlaces are the paths of own places.
func keepPlaces(own []ownPlace) []string {
	var out []string
	for _, p := range own {
		out = append(out, p.path)
	}
	return out
}

// checkPlaces refuses to restore to a place that is, lies in or contains one of this program's own: a restore there
// would write into the repository that it reads, or over the identity. Over the original place it is allowed: there
// backups leave these places out, and --delete leaves them alone.
func checkPlaces(o restorer.Options, own []ownPlace) error {
	var targets []string
	if o.Target != "" {
		targets = append(targets, o.Target)
	}
	for _, to := range o.Map {
		targets = append(targets, to)
	}
	slices.Sort(targets)
	for _, target := range targets {
		to := realPath(target)
		for _, p := range own {
			where, at := "", realPath(p.path)
			switch {
			case at == to:
				where = "is"
			case snapshot.Within(at, to):
				where = "lies in"
			case snapshot.Within(to, at):
				where = "contains"
			default:
				continue
			}
			return hinted{
				usageError{fmt.Errorf("restore to %s: it %s %s (%s)", target, where, p.what, p.path)},
				"name a directory of its own, or restore over the original with --in-place",
			}
		}
	}
	return nil
}

// realPath resolves the symlinks in what there is of an absolute path.
func realPath(path string) string {
	rest := ""
	for dir := path; ; dir = filepath.Dir(dir) {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(real, rest)
		}
		if dir == filepath.Dir(dir) {
			return path
		}
		rest = filepath.Join(filepath.Base(dir), rest)
	}
}
