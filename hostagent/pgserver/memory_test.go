package pgserver

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMemory takes the least that any control group allows.
func TestMemory(t *testing.T) {
	machine := memory(t.TempDir())
	if machine < 16<<20 {
		t.Errorf("%d bytes", machine)
	}
	root := t.TempDir()
	for path, text := range map[string]string{
		"proc/self/cgroup":                                       "0::/system.slice/holdfast.service\n",
		"sys/fs/cgroup/memory.max":                               "max\n",
		"sys/fs/cgroup/system.slice/memory.max":                  "4194304\n",
		"sys/fs/cgroup/system.slice/holdfast.service/memory.max": "8388608\n",
	} {
		at := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := memory(root); got != 4<<20 {
		t.Errorf("%d bytes", got)
	}
}
