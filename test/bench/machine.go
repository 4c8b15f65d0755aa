package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// machine is where a report was measured.
type machine struct {
	CPU        string `json:"cpu"`
	CPUs       int    `json:"cpus"`
	Used       int    `json:"used"` // CPUs that each tool had
	Memory     int64  `json:"memory_bytes"`
	Kernel     string `json:"kernel"`
	FileSystem string `json:"file_system"`
	Go         string `json:"go"`
	Load       string `json:"load"` // before the run
}

func (b *bench) machine() machine {
	m := machine{CPUs: runtime.NumCPU(), Used: runtime.NumCPU(), Go: runtime.Version(), CPU: "unknown", FileSystem: fileSystem(b.dir)}
	if b.cpus > 0 {
		m.Used = min(m.Used, b.cpus)
	}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := strings.Cut(string(info), "model name"); ok {
			line, _, _ := strings.Cut(rest, "\n")
			m.CPU = strings.TrimSpace(strings.TrimLeft(line, "\t :"))
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var i unix.Sysinfo_t
	if unix.Sysinfo(&i) == nil {
		m.Memory = int64(i.Totalram) * int64(i.Unit) //nolint:unconvert // the types differ between architectures
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load = strings.Join(strings.Fields(string(load))[:3], " ")
	}
	return m
}

func fileSystem(dir string) string {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return "unknown"
	}
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs",
		unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
	}
	if n, ok := names[int64(s.Type)]; ok { //nolint:unconvert // the types differ between architectures
		return n
	}
	return fmt.Sprintf("type %#x", s.Type)
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %d of %d CPUs used, %.0f GB of memory, Linux %s, %s, %s; load before the run %s",
		m.CPU, m.Used, m.CPUs, float64(m.Memory)/1e9, m.Kernel, m.FileSystem, m.Go, m.Load)
}

// newReport begins the report of a mode.
func (b *bench) newReport(mode string, tools []*tool) *report {
	r := &report{Mode: mode, Machine: b.machine(), Versions: map[string]string{}}
	r.order(tools)
	for _, t := range tools {
		r.Versions[t.name] = t.version
		if t.how != "" {
			r.Notes = append(r.Notes, fmt.Sprintf("%s %s: %s", t.name, t.version, t.how))
		}
	}
	return r
}
