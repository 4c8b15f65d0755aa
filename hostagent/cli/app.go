package cli

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/btcdecoded/holdfast/shared/policy"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
)

// app is one run of the command line: its streams, its surroundings and the global flags.
type app struct {
	stdio   Stdio
	version string
	now     func() time.Time
	env     func(string) (string, bool)
	flags   globalFlags

	noPolicy bool           // --policy was given with an empty value
	unnamed  error          // why databases that a pattern of the policy names have no source
	pinned   *policy.Policy // of the agent, whatever stands in the file by now; nil: the file counts

	beside  map[string]logTail   // the agent's followers, by source: a backup stands in their logs
	also    []string             // further places to read from
	proving bool                 // the agent tries a restore in a directory of its own below the state directory
	resumes func(*verify.Resume) // the agent verifies, and may have to give way: told of what is gone on with; nil: nothing is
}

// globalFlags are the flags that every command has.
type globalFlags struct {
	repository, identity, policy, host, state string
	asOf                                      string
	json, quiet                               bool
	limitUp, limitDown                        byteSize
	connections                               int
}

func (f *globalFlags) register(root *cobra.Command) {
	p := root.PersistentFlags()
	p.SortFlags = false
	p.StringVarP(&f.repository, "repository", "r", "", "`URL` of the repository: a directory, s3://bucket/prefix or gs://bucket/prefix (HOLDFAST_REPOSITORY)")
	p.StringVar(&f.identity, "identity", "", "identity `FILE` (HOLDFAST_IDENTITY; default ~/.config/holdfast/identity)")
	p.StringVar(&f.policy, "policy", "", "policy `FILE` (HOLDFAST_POLICY; default /etc/holdfast/policy.yaml; empty: none)")
	p.StringVar(&f.host, "host", "", "`NAME` of this host in the repository (HOLDFAST_HOST; default its host name)")
	p.StringVar(&f.state, "state", "", "`DIR` for locks and caches (HOLDFAST_STATE; default /var/lib/holdfast or ~/.local/state/holdfast)")
	p.StringVar(&f.asOf, "as-of", "", "read the repository as it was at `TIME`, by the versions that the store keeps; nothing can be written")
	p.BoolVar(&f.json, "json", false, "print results as JSON")
	p.BoolVarP(&f.quiet, "quiet", "q", false, "no progress, and no result unless something is wrong")
	p.Var(&f.limitUp, "limit-upload", "at most `SIZE` a second to the repository, such as 10MiB")
	p.Var(&f.limitDown, "limit-download", "at most `SIZE` a second from the repository")
	p.IntVar(&f.connections, "connections", 0, "at most `N` requests at the same time")
}

// byteSize is a flag such as 10MiB.
type byteSize uint64

func (b *byteSize) String() string {
	if *b == 0 {
		return ""
	}
	return humanize.IBytes(uint64(*b))
}

// Set parses a size with or without a unit.
func (b *byteSize) Set(s string) error {
	n, err := humanize.ParseBytes(s)
	if err != nil || n == 0 {
		return fmt.Errorf("size %q: want a number with a unit such as 10MiB", s)
	}
	*b = byteSize(n)
	return nil
}

// Type names the flag's values in the help.
func (*byteSize) Type() string { return "size" }

// setting is a flag's value, or else the environment's, or else the first default that is not empty.
func (a *app) setting(flag, variable string, defaults ...string) string {
	if flag != "" {
		return flag
	}
	if v, ok := a.env(variable); ok && v != "" {
		return v
	}
	for _, d := range defaults {
		if d != "" {
			return d
		}
	}
	return ""
}

// home is the user's home directory, also where HOME is not set, as under cron and systemd.
func (a *app) home() string {
	if h, ok := a.env("HOME"); ok && h != "" {
		return h
	}
	if u, err := user.Current(); err == nil {
		return u.HomeDir
	}
	return "/"
}

// identityPath is where the identity file is or will be.
func (a *app) identityPath() string {
	return a.setting(a.flags.identity, "", a.hostIdentityPath())
}

// hostIdentityPath is where this host's own identity is, whichever a command was given.
func (a *app) hostIdentityPath() string {
	dir, ok := a.env("XDG_CONFIG_HOME")
	if !ok || !filepath.IsAbs(dir) {
		dir = filepath.Join(a.home(), ".config")
	}
	return a.setting("", "HOLDFAST_IDENTITY", filepath.Join(dir, "holdfast", "identity"))
}

// statePath is the directory for locks, caches and what was last seen.
func (a *app) statePath() string {
	def := "/var/lib/holdfast"
	if os.Geteuid() != 0 {
		dir, ok := a.env("XDG_STATE_HOME")
		if !ok || !filepath.IsAbs(dir) {
			dir = filepath.Join(a.home(), ".local", "state")
		}
		def = filepath.Join(dir, "holdfast")
	}
	return a.setting(a.flags.state, "HOLDFAST_STATE", def)
}

// host is this host's name in the repository.
func (a *app) host() (string, error) {
	if name := a.setting(a.flags.host, "HOLDFAST_HOST"); name != "" {
		return name, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", hinted{fmt.Errorf("read the host name: %w", err), "name this host with --host"}
	}
	return hostName(name), nil
}

// hostName makes a name that the format allows from what the system calls itself.
func hostName(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
			return r
		}
		return '-'
	}, strings.ToLower(name))
	name = strings.TrimLeft(name, "._-")
	if len(name) > 63 {
		name = name[:63]
	}
	if name == "" || name == "access" {
		return "host"
	}
	return name
}
