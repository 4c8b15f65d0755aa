package pgserver

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// memory is how many bytes of memory this program may use: those of the machine, or of the control group that it is in, as of
// a container. root is where the system's files are.
func memory(root string) uint64 {
	least := uint64(1 << 30)
	var si syscall.Sysinfo_t
	if err := syscall.Sysinfo(&si); err == nil {
		least = si.Totalram * uint64(si.Unit) //nolint:unconvert // differs by architecture
	}
	limit := func(path string) {
		b, err := os.ReadFile(filepath.Join(root, path)) //nolint:gosec // of the system
		if err != nil {
			return
		}
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil && n > 0 { // "max": none
			least = min(least, n)
		}
	}
	const groups = "sys/fs/cgroup"
	limit(groups + "/memory/memory.limit_in_bytes") // the first version, in a container
	if b, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup")); err == nil {
		for line := range strings.Lines(string(b)) {
			if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
				// Each group above limits it too.
				for at := filepath.Clean("/" + path); ; at = filepath.Dir(at) {
					limit(filepath.Join(groups, at, "memory.max"))
					if at == "/" {
						break
					}
				}
			}
		}
	}
	return least
}
