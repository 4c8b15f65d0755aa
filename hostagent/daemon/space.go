package daemon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/policy"
)

const (
	// maxPlaces bounds the directories whose room a heartbeat tells.
	maxPlaces = 20
	// spacePatience is how long a look at the room may take: a file system of a network that is gone answers never.
	spacePatience = 2 * time.Second
)

// places are the directories to which restores over the queue may write: those that the policy names, and where
// restores in place are allowed, what the sources have.
func places(p *policy.Policy, host string) []string {
	h := p.Hosts[host]
	if h == nil {
		return nil
	}
	out := slices.Clone(h.Restore.Targets)
	if h.Restore.InPlace {
		p.Each(func(at, _ string, s *policy.Source) {
			if at == host && s.Files != nil {
				out = append(out, s.Files.Roots...)
			}
		})
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return out[:min(len(out), maxPlaces)]
}

// freeBytes says how many bytes are free at each place, or at what there is above it. Places that do not answer in time
// are left out, and as long as an earlier look has not ended there is no other.
func (a *Agent) freeBytes(places []string) map[string]uint64 {
	if len(places) == 0 || !a.looking.CompareAndSwap(false, true) {
		return nil
	}
	found := make(chan map[string]uint64, 1)
	go func() {
		defer a.looking.Store(false)
		free := map[string]uint64{}
		for _, place := range places {
			var st unix.Statfs_t
			if err := unix.Statfs(existing(place), &st); err == nil && st.Blocks > 0 {
				free[place] = st.Bavail * uint64(max(st.Frsize, 1)) //nolint:gosec // a block size
			}
		}
		found <- free
	}()
	t := time.NewTimer(spacePatience)
	defer t.Stop()
	select {
	case free := <-found:
		return free
	case <-t.C:
		return nil
	}
}

// existing is the nearest directory above a place that is there.
func existing(place string) string {
	for {
		if _, err := os.Stat(place); !errors.Is(err, fs.ErrNotExist) || place == "/" {
			return place
		}
		place = filepath.Dir(place)
	}
}
