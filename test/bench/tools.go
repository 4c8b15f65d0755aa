package main

import (
	"os"
	"path/filepath"
	"strings"
)

// The steps, in their order.
const (
	stepFull      = "full"
	stepUnchanged = "unchanged"
	stepDay2      = "day 2"
	stepVerify    = "verify"
	stepRestore   = "restore"
)

// The tools. All but floors and holdfast are peers.
const (
	toolHoldfast = "holdfast"
	toolRestic   = "restic"
	toolKopia    = "kopia"
	toolBorg     = "borg"
	toolFloor    = "floor"
)

func peers() []string { return []string{toolRestic, toolKopia, toolBorg} }

// place is where a tool works. All that it writes lies below home, so that its state can be copied as a whole.
type place struct {
	home string // repository, caches, configuration
	tree string // what is backed up
	out  string // where restores go; the tool makes it
	url  string // of a repository elsewhere; "": below home
}

func (p place) repository() string {
	if p.url != "" {
		return p.url
	}
	return filepath.Join(p.home, "repository")
}

func (p place) below(name string) string { return filepath.Join(p.home, name) }

// tool is a program and how it is called.
type tool struct {
	name    string
	path    string
	version string
	how     string // the settings, for the document
	env     func(place) []string
	setup   func(place) []invocation // makes an empty repository in p.home
	step    map[string]func(place) invocation
}

// at returns the command of a step, with the tool's environment; false if the tool has no such step.
func (t *tool) at(step string, p place) (invocation, bool) {
	f, ok := t.step[step]
	if !ok {
		return invocation{}, false
	}
	i := f(p)
	i.env = append(t.env(p), i.env...)
	return i, true
}

// prepare lists the commands that make an empty repository.
func (t *tool) prepare(p place) []invocation {
	all := t.setup(p)
	for i := range all {
		all[i].env = append(t.env(p), all[i].env...)
	}
	return all
}

func call(args ...string) invocation { return invocation{args: args} }

func holdfastTool(path, version string) *tool {
	source := "corpus"
	backup := func(p place) invocation { return call(path, "backup", "-q", "--files", p.tree, "--name", source) }
	return &tool{
		name: toolHoldfast, path: path, version: version, how: "defaults; `verify --level content`",
		env: func(p place) []string {
			return []string{
				"HOME=" + p.home, "HOLDFAST_REPOSITORY=" + p.repository(), "HOLDFAST_IDENTITY=" + p.below("identity"),
				"HOLDFAST_STATE=" + p.below("state"), "HOLDFAST_HOST=bench",
			}
		},
		setup: func(place) []invocation { return []invocation{call(path, "init", "-q")} },
		step: map[string]func(place) invocation{
			stepFull: backup, stepUnchanged: backup, stepDay2: backup,
			stepVerify:  func(place) invocation { return call(path, "verify", "-q", "--level", "content") },
			stepRestore: func(p place) invocation { return call(path, "restore", "-q", source, "--to", p.out) },
		},
	}
}

func resticTool(path, version string) *tool {
	backup := func(p place) invocation { return call(path, "backup", "-q", p.tree) }
	return &tool{
		name: toolRestic, path: path, version: version, how: "defaults (compression auto); `check --read-data`",
		env: func(p place) []string {
			return []string{
				"HOME=" + p.home, "RESTIC_REPOSITORY=" + p.repository(), "RESTIC_PASSWORD=benchmark",
				"RESTIC_CACHE_DIR=" + p.below("cache"),
			}
		},
		setup: func(place) []invocation { return []invocation{call(path, "init", "-q")} },
		step: map[string]func(place) invocation{
			stepFull: backup, stepUnchanged: backup, stepDay2: backup,
			stepVerify:  func(place) invocation { return call(path, "check", "-q", "--read-data") },
			stepRestore: func(p place) invocation { return call(path, "restore", "-q", "latest:"+p.tree, "--target", p.out) },
		},
	}
}

func kopiaTool(path, version string) *tool {
	kopia := func(args ...string) invocation { return call(append([]string{path, "--no-progress"}, args...)...) }
	backup := func(p place) invocation { return kopia("snapshot", "create", p.tree) }
	return &tool{
		name: toolKopia, path: path, version: version,
		how: "compression zstd-fastest; `snapshot verify --verify-files-percent=100`",
		env: func(p place) []string {
			return []string{
				"HOME=" + p.home, "KOPIA_PASSWORD=benchmark", "KOPIA_CONFIG_PATH=" + p.below("repository.config"),
				"KOPIA_CACHE_DIRECTORY=" + p.below("cache"), "KOPIA_LOG_DIR=" + p.below("log"),
				"KOPIA_CHECK_FOR_UPDATES=false", "KOPIA_PERSIST_CREDENTIALS_ON_CONNECT=false",
			}
		},
		setup: func(p place) []invocation {
			return []invocation{
				kopia("repository", "create", "filesystem", "--path", p.repository(), "--override-hostname", "bench",
					"--override-username", "bench"),
				kopia("policy", "set", "--global", "--compression", "zstd-fastest"),
			}
		},
		step: map[string]func(place) invocation{
			stepFull: backup, stepUnchanged: backup, stepDay2: backup,
			stepVerify: func(place) invocation { return kopia("snapshot", "verify", "--verify-files-percent=100") },
			stepRestore: func(p place) invocation {
				return kopia("restore", p.tree, p.out, "--snapshot-time", "latest")
			},
		},
	}
}

func borgTool(path, version string) *tool {
	mode := borgMode()
	backup := func(p place) invocation {
		i := call(path, "create", "--compression", "zstd,1", p.repository()+"::{utcnow:%Y%m%dT%H%M%S.%f}", ".")
		i.dir = p.tree
		return i
	}
	return &tool{
		name: toolBorg, path: path, version: version, how: "`--encryption " + mode + "`, compression zstd,1; `check --verify-data`",
		env: func(p place) []string {
			return []string{
				"HOME=" + p.home, "BORG_BASE_DIR=" + p.home, "BORG_PASSPHRASE=benchmark",
				"BORG_RELOCATED_REPO_ACCESS_IS_OK=yes", "BORG_EXIT_CODES=modern",
			}
		},
		setup: func(p place) []invocation {
			return []invocation{call(path, "init", "--encryption", mode, p.repository())}
		},
		step: map[string]func(place) invocation{
			stepFull: backup, stepUnchanged: backup, stepDay2: backup,
			stepVerify: func(p place) invocation { return call(path, "check", "--verify-data", p.repository()) },
			stepRestore: func(p place) invocation {
				// Borg extracts into the working directory, and an archive is named: the newest.
				i := call("sh", "-c", `mkdir "$3" && cd "$3" && "$1" extract "$2::$("$1" list --short --last 1 "$2")"`,
					"sh", path, p.repository(), p.out)
				return i
			},
		},
	}
}

// borgMode is the encryption that is the fastest here: SHA-256 where the CPU computes it, else BLAKE2.
func borgMode() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err == nil && strings.Contains(string(b), " sha_ni") {
		return "repokey"
	}
	return "repokey-blake2"
}

// floorTool shows what the machine can do without a backup's duties.
func floorTool() *tool {
	return &tool{
		name: toolFloor, version: "coreutils, tar, zstd", how: "full: `tar | zstd -3 -T2`; unchanged: `find` with a stat of each file; restore: `cp -a`",
		env:   func(p place) []string { return []string{"HOME=" + p.home} },
		setup: func(place) []invocation { return nil },
		step: map[string]func(place) invocation{
			stepFull: func(p place) invocation {
				return call("sh", "-c", `tar -C "$1" -cf - . | zstd -q -3 -T2 -o "$2"`, "sh", p.tree, p.repository())
			},
			stepUnchanged: func(p place) invocation {
				return call("sh", "-c", `find "$1" -printf '%s %T@ %C@ %i\n' >"$2"`, "sh", p.tree, p.below("found"))
			},
			stepRestore: func(p place) invocation { return call("cp", "-a", p.tree, p.out) },
		},
	}
}
