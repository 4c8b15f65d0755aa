package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/state"
	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/keyring/awskms"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/versions"
	"github.com/btcdecoded/holdfast/shared/observe"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// open opens the repository that the command names, with the user's identity.
func (a *app) open(ctx context.Context) (*repository.Repository, error) {
	address, err := a.address()
	if err != nil {
		return nil, err
	}
	return a.openAt(ctx, address)
}

// openAt opens the repository at an address, with the user's identity.
func (a *app) openAt(ctx context.Context, address string) (*repository.Repository, error) {
	store, err := a.store(ctx, address)
	if err != nil {
		return nil, err
	}
	if a.flags.asOf != "" {
		when, err := parseTime(a.flags.asOf, a.now())
		if err != nil {
			return nil, err
		}
		if store, err = versions.AsOf(store, when); err != nil {
			return nil, err
		}
	}
	identity, err := a.identity()
	if errors.Is(err, fs.ErrNotExist) {
		// Where there is no repository either, that is what the user must hear first.
		if _, serr := store.Stat(ctx, layout.RepositoryKey); errors.Is(serr, objstore.ErrNotExist) {
			return nil, fmt.Errorf("open repository %s: %w", address, repository.ErrNoRepository)
		}
	}
	if err != nil {
		return nil, err
	}
	repo, err := repository.Open(ctx, store, identity)
	if errors.Is(err, repository.ErrUnfinished) {
		err = unfinished(ctx, store, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", address, err)
	}
	a.noteAccess(repo, address)
	return repo, nil
}

// errNoIdentityFile says that there is no identity file; it is fs.ErrNotExist as well.
var errNoIdentityFile = errors.New("no identity")

// identity loads the user's identity file.
func (a *app) identity() (*keyring.Identity, error) {
	path := a.identityPath()
	id, err := keyring.LoadIdentity(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("load identity %s: %w: %w", path, errNoIdentityFile, fs.ErrNotExist)
	}
	if err != nil {
		return nil, identityError{err}
	}
	id.UseKMS(awskms.New(awskms.Options{})) // asks nobody until a key of KMS is needed
	return id, nil
}

// errBadIdentity says that the identity file can not be used; its text is in the error that matches it.
var errBadIdentity = errors.New("bad identity")

// identityError is what is wrong with an identity file.
type identityError struct{ error }

func (e identityError) Unwrap() []error { return []error{e.error, errBadIdentity} }

// source finds the source that a selector names: where it names no host, this host's, or else the only one of that
// name.
func (a *app) source(ctx context.Context, repo *repository.Repository, sel snapshot.Selector) (snapshot.Source, error) {
	if sel.Host != "" {
		return snapshot.Source{Host: sel.Host, Name: sel.Name}, nil
	}
	own, err := a.host()
	if err != nil {
		return snapshot.Source{}, err
	}
	sources, err := repo.Sources(ctx)
	if err != nil {
		return snapshot.Source{}, err
	}
	var others []string
	for _, src := range sources {
		if src.Name != sel.Name {
			continue
		}
		if src.Host == own {
			return src, nil
		}
		others = append(others, src.String())
	}
	switch {
	case len(others) == 0:
		return snapshot.Source{}, noSource(sel, sources)
	case len(others) > 1 || a.flags.host != "":
		return snapshot.Source{}, hinted{usagef("source %s: this host has none of that name", sel.Name), "name one of " + strings.Join(others, ", ")}
	}
	return snapshot.ParseSource(others[0])
}

func noSource(sel snapshot.Selector, sources []snapshot.Source) error {
	err := fmt.Errorf("source %s: %w", sel.Name, repository.ErrNoSnapshot)
	if len(sources) == 0 {
		return hinted{err, "the repository is empty; `holdfast backup` fills it"}
	}
	names := make([]string, 0, len(sources))
	for _, s := range sources {
		names = append(names, s.String())
	}
	return hinted{err, "the repository has " + strings.Join(names, ", ")}
}

// sources turns arguments into sources; without arguments it returns all, or those of --host where that is given.
func (a *app) sources(ctx context.Context, repo *repository.Repository, args []string) ([]snapshot.Source, error) {
	if len(args) == 0 {
		all, err := repo.Sources(ctx)
		if err != nil || a.flags.host == "" {
			return all, err
		}
		return slices.DeleteFunc(all, func(s snapshot.Source) bool { return s.Host != a.flags.host }), nil
	}
	var out []snapshot.Source
	for _, arg := range args {
		sel, err := selector(arg)
		if err != nil {
			return nil, err
		}
		if sel.Sequence != 0 || sel.Latest {
			return nil, usagef("%s: want a source, not one of its snapshots", arg)
		}
		src, err := a.source(ctx, repo, sel)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, src) {
			out = append(out, src)
		}
	}
	return out, nil
}

func selector(arg string) (snapshot.Selector, error) {
	sel, err := snapshot.ParseSelector(arg)
	if err != nil {
		return sel, hinted{usageError{err}, "want SOURCE, HOST/SOURCE, SOURCE@NUMBER or SOURCE@latest"}
	}
	return sel, nil
}

// find finds the snapshot that a selector names; with at, the newest that was finished at that time.
func (a *app) find(ctx context.Context, repo *repository.Repository, arg, at string) (*repository.Stored, error) {
	sel, err := selector(arg)
	if err != nil {
		return nil, err
	}
	if at != "" && (sel.Sequence != 0 || sel.Latest) {
		return nil, usagef("%s: the snapshot is chosen by its number or by --at, not by both", arg)
	}
	src, err := a.source(ctx, repo, sel)
	if err != nil {
		return nil, err
	}
	if err := a.checkRollback(ctx, repo, src); err != nil {
		return nil, err
	}
	switch {
	case sel.Sequence != 0:
		return repo.Manifest(ctx, snapshot.ID{Source: src, Sequence: sel.Sequence})
	case at != "":
		return a.findAt(ctx, repo, src, at)
	}
	listed, err := repo.Sequences(ctx, src)
	if err != nil {
		return nil, err
	}
	if len(listed) == 0 {
		return nil, fmt.Errorf("source %s: %w", src, repository.ErrNoSnapshot)
	}
	return newest(ctx, repo, src, listed)
}

// newest is the newest snapshot; unfinished ones only count where there is no other.
func newest(ctx context.Context, repo *repository.Repository, src snapshot.Source, listed []repository.Listed) (*repository.Stored, error) {
	var last *repository.Stored
	for _, l := range slices.Backward(listed) {
		m, err := repo.Manifest(ctx, snapshot.ID{Source: src, Sequence: l.Sequence})
		if errors.Is(err, snapshot.ErrFormat) || errors.Is(err, keyring.ErrSignature) || errors.Is(err, keyring.ErrUnsigned) {
			return nil, hinted{err, "an older snapshot can be named, as `holdfast snapshots` lists them; `holdfast repair --from COPY` puts this one back"}
		}
		if err != nil {
			return nil, err
		}
		if !m.Unfinished {
			return m, nil
		}
		if last == nil {
			last = m
		}
	}
	return last, nil
}

// warnFuture says what comes back where a time was asked for that is to come: the year, most often, is another.
func (a *app) warnFuture(at time.Time, what string) {
	if at.Sub(a.now()) > time.Minute {
		a.warn("--at %s is in the future: that is the newest %s", stamp(at), what)
	}
}

// findAt finds the newest snapshot that was finished at a time.
func (a *app) findAt(ctx context.Context, repo *repository.Repository, src snapshot.Source, at string) (*repository.Stored, error) {
	when, err := parseTime(at, a.now())
	if err != nil {
		return nil, err
	}
	a.warnFuture(when, "snapshot")
	all, err := observe.Manifests(ctx, repo, src)
	var bad *repository.BadManifestError
	if err != nil && !errors.As(err, &bad) {
		return nil, err
	}
	if bad != nil {
		a.warn("%v", err)
	}
	points := make([]recovery.Point, 0, len(all))
	for _, m := range all {
		points = append(points, recovery.FromManifest(m.Manifest, m.Arrived))
	}
	chosen, err := recovery.Select(points, recovery.Selector{At: when})
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", src, err)
	}
	i := slices.IndexFunc(all, func(m *repository.Stored) bool { return m.Sequence == chosen.Point.Sequence })
	return all[i], nil
}

// judge warns about what a person should know before restoring a snapshot, and names a better one where there is one.
func (a *app) judge(ctx context.Context, repo *repository.Repository, m *repository.Stored) error {
	src := m.ID().Source
	h, err := observe.ReadReceipts(ctx, repo, src)
	if err != nil {
		return err
	}
	var points []recovery.Point
	for _, s := range h.Compliance() {
		points = append(points, s.Point)
	}
	chosen, err := recovery.Select(points, recovery.Selector{Sequence: m.Sequence})
	if err != nil {
		return fmt.Errorf("source %s: %w", src, err)
	}
	for _, w := range chosen.Warnings {
		a.warn("%s: %s", src.Name, w)
	}
	if n := len(h.Damaged[m.Sequence]); n > 0 {
		a.warn("%s uses %s that failed a check; `holdfast repair --from COPY` puts back what a copy has", a.name(m.ID()), count(uint64(n), "pack", "packs"))
	}
	return nil
}

// checkRollback warns where the repository shows less of a source than this host has seen before.
func (a *app) checkRollback(ctx context.Context, repo *repository.Repository, src snapshot.Source) error {
	if a.flags.asOf != "" {
		return nil // the past ends earlier
	}
	rollback, err := a.rollback(ctx, repo, src)
	switch {
	case err != nil || rollback == nil:
	case a.elsewhere(repo):
		a.warn("this copy does not have the newest: %v", rollback)
	default:
		a.warn("%v; somebody may have put an old state of the repository back", rollback)
	}
	return err
}

// elsewhere reports whether the command looks at a copy: another place than the one that this host backs up to. A copy
// that has less than was seen lags, and so does the past (--as-of); that is no rollback.
func (a *app) elsewhere(repo *repository.Repository) bool {
	if a.flags.asOf != "" {
		return true
	}
	place := state.Open(a.statePath(), repo.ID()).Place()
	address, err := a.address()
	return err == nil && place != "" && place != absolute(address)
}

// absolute is an address that means the same from every directory.
func absolute(address string) string {
	dir, ok := localPath(address)
	if !ok {
		return address
	}
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}

func (a *app) rollback(ctx context.Context, repo *repository.Repository, src snapshot.Source) (*repository.RollbackError, error) {
	seen, hash, ok := repository.LastSeen(a.statePath(), repo.ID(), src)
	if !ok {
		return nil, nil
	}
	listed, err := repo.Sequences(ctx, src)
	if err != nil {
		return nil, err
	}
	found := uint64(0)
	if len(listed) > 0 {
		found = listed[len(listed)-1].Sequence
	}
	if found < seen {
		// Retention may have removed it: then there is a signed record of that.
		expired, err := repo.Expired(ctx, src)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(expired, func(l repository.Listed) bool { return l.Sequence == seen }) {
			return &repository.RollbackError{Source: src, Seen: seen, Found: found}, nil
		}
		return nil, nil
	}
	m, err := repo.Manifest(ctx, snapshot.ID{Source: src, Sequence: seen})
	if errors.Is(err, repository.ErrNoSnapshot) {
		return nil, nil // a gap; verify tells whether retention made it
	}
	if err != nil {
		return nil, nil //nolint:nilerr // whoever needs this snapshot gets the error
	}
	if m.Hash != hash {
		return &repository.RollbackError{Source: src, Seen: seen, Found: found, Replaced: true}, nil
	}
	return nil, nil
}

// name is how a snapshot is called on this host: without the host's name where it is its own.
func (a *app) name(id snapshot.ID) string {
	if own, err := a.host(); err == nil && own == id.Host {
		return fmt.Sprintf("%s@%d", id.Name, id.Sequence)
	}
	return id.String()
}
