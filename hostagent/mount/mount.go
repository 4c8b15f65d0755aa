// Package mount shows the snapshots of a repository as a read-only file system (FUSE): hosts, below them sources, below
// them snapshots named by number and time, below them what was captured, by its path. Use [Mount].
//
// Nothing can be written, device nodes can't be opened and set-uid bits do nothing. The process never touches the
// mounted directory itself, so it can always be killed.
package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/repository"
)

// Options says how to mount.
type Options struct {
	AllowOther bool // other users may look, with the rights that the modes give them; needs root or user_allow_other
}

// Mount shows repo in dir, which must be an empty directory, until ctx ends or somebody unmounts it. It calls ready
// when the file system can be used.
func Mount(ctx context.Context, repo *repository.Repository, dir string, o Options, ready func()) error {
	if err := checkTarget(dir); err != nil {
		return err
	}
	long := time.Hour
	second := time.Second
	none := time.Duration(0)
	top := &topNode{view: &view{ctx: ctx, repo: repo, seed: maphash.MakeSeed()}}
	raw := fs.NewNodeFS(top, &fs.Options{EntryTimeout: &second, AttrTimeout: &long, NegativeTimeout: &none, RootStableAttr: &fs.StableAttr{Ino: 1}})
	server, err := fuse.NewServer(raw, dir, &fuse.MountOptions{
		FsName: "holdfast", Name: "holdfast", AllowOther: o.AllowOther, DirectMount: true, MaxReadAhead: 1 << 20,
		DirectMountFlags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_RDONLY,
		Options:          []string{"ro", "default_permissions"}, SyncRead: false,
	})
	if err != nil {
		return fmt.Errorf("mount on %s: %w", dir, err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve()
	}()
	if err := server.WaitMount(); err != nil {
		return errors.Join(fmt.Errorf("mount on %s: %w", dir, err), server.Unmount())
	}
	ready()
	select {
	case <-served:
		return nil
	case <-ctx.Done():
	}
	return end(server, dir, served)
}

// end unmounts. A file system that somebody still uses is detached: it goes when the last of them leaves, and until then
// every request to it is answered with an error, since the context is over.
func end(server *fuse.Server, dir string, served <-chan struct{}) error {
	if err := server.Unmount(); err == nil {
		<-served
		return nil
	}
	err := unix.Unmount(dir, unix.MNT_DETACH)
	if errors.Is(err, unix.EPERM) { // only root may; for others there is FUSE's own tool, which mounted it too
		err = detach(dir)
	}
	if err != nil {
		return fmt.Errorf("unmount %s, which is in use: %w", dir, err)
	}
	return nil
}

// detach has FUSE's set-uid tool detach what is mounted on dir. It returns EPERM if there is no such tool.
func detach(dir string) error {
	for _, tool := range []string{"fusermount3", "fusermount"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			continue
		}
		// The context of the mount is over, and this is what must still be done.
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, path, "-u", "-z", "--", dir).CombinedOutput() //nolint:gosec // the directory comes after "--"
		if err != nil {
			return fmt.Errorf("%s: %w: %s", tool, err, bytes.TrimSpace(out))
		}
		return nil
	}
	return unix.EPERM
}

func checkTarget(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("mount on %s: %w", dir, err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("mount on %s: the directory is not empty", dir)
	}
	return nil
}

// view is what all nodes share.
type view struct {
	// Requests end with the mount, not with their own context: that one ends at every signal of the calling process, and
	// not every program calls again.
	ctx  context.Context //nolint:containedctx // of the mount
	repo *repository.Repository
	seed maphash.Seed // of inode numbers

	mu   sync.Mutex
	open map[string]*repository.Snapshot // by snapshot.ID
}

// snapshot opens a snapshot once.
func (v *view) snapshot(m *repository.Stored) (*repository.Snapshot, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	id := m.ID().String()
	if s, ok := v.open[id]; ok {
		return s, nil
	}
	s, err := v.repo.Snapshot(v.ctx, m)
	if err != nil {
		return nil, err
	}
	if v.open == nil {
		v.open = map[string]*repository.Snapshot{}
	}
	v.open[id] = s
	return s, nil
}
