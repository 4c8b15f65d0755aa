package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The versions that are measured. Borg comes from Debian, whichever version that has; it is read from the tool.
const (
	resticModule, resticPackage = "github.com/restic/restic@v0.19.1", "./cmd/restic"
	kopiaModule, kopiaPackage   = "github.com/kopia/kopia@v0.22.3", "."
)

// install builds a peer from source, unless it is there in this version. It is built inside its own module, with the
// versions of its dependencies that it was released with.
func install(ctx context.Context, path, module, pkg string, log func(string, ...any)) (version string, err error) {
	_, version, _ = strings.Cut(module, "@")
	stamp := path + ".version"
	if b, err := os.ReadFile(stamp); err == nil && string(b) == version {
		if _, err := os.Stat(path); err == nil {
			return version, nil
		}
	}
	log("building %s (once, takes minutes)", module)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // programs for everybody
		return "", err
	}
	env := append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	download := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
	download.Dir, download.Env = filepath.Dir(path), env
	out, err := download.Output()
	if err != nil {
		return "", fmt.Errorf("download %s: %w\n%s", module, err, out)
	}
	var source struct{ Dir string }
	if err := json.Unmarshal(out, &source); err != nil {
		return "", fmt.Errorf("download %s: %w", module, err)
	}
	cmd := exec.CommandContext(ctx, "nice", "-n", "10", "go", "build", "-mod=readonly", "-trimpath", "-o", path, pkg)
	cmd.Dir, cmd.Env = source.Dir, env
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", module, err, out)
	}
	return version, os.WriteFile(stamp, []byte(version), 0o600)
}

// installBorg takes borg from Debian, which as root it installs itself.
func installBorg(ctx context.Context, log func(string, ...any)) (path, version string, err error) {
	path, err = exec.LookPath("borg")
	if err != nil && os.Geteuid() == 0 {
		log("installing borgbackup")
		cmd := exec.CommandContext(ctx, "apt-get", "install", "-y", "--no-install-recommends", "borgbackup")
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", "", fmt.Errorf("install borgbackup: %w\n%s", err, out)
		}
		path, err = exec.LookPath("borg")
	}
	if err != nil {
		return "", "", fmt.Errorf("find borg: %w; install Debian's borgbackup", err)
	}
	out, err := invocation{args: []string{path, "--version"}}.run(ctx)
	return path, strings.TrimSpace(strings.TrimPrefix(out, "borg ")), err
}

// buildHoldfast builds this checkout as the Makefile does.
func buildHoldfast(ctx context.Context, root, dir string) (path, version string, err error) {
	path = filepath.Join(dir, "holdfast")
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // programs for everybody
		return "", "", err
	}
	version = "unknown"
	describe := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty")
	describe.Dir = root
	if out, err := describe.Output(); err == nil {
		version = string(bytes.TrimSpace(out))
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+version, "-o", path, "./hostagent")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("build holdfast: %w\n%s", err, out)
	}
	return path, version, nil
}

// checkout is the directory of this module: the working directory or one above it.
func checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "test", "bench", "results.go")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("find the checkout: test/bench is not below the working directory; start this inside the checkout")
		}
	}
}
