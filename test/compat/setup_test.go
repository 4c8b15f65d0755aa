package compat_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/btcdecoded/holdfast/test/program"
)

// modules are what a usable environment can import; a Python that is too old fails at the reader's annotations.
const modules = "import sys, cryptography, zstandard, ruff; assert sys.version_info >= (3, 11)"

// programs are the two that are set against each other.
type programs struct {
	holdfast string // the real binary
	python   string // the interpreter of an environment with what the reader needs
}

// setUp builds Holdfast and installs what the reader needs.
func setUp(t *testing.T) programs {
	t.Helper()
	holdfast, err := program.Holdfast(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return programs{holdfast: holdfast, python: environment(t)}
}

// environment returns the interpreter of a virtual environment with the pinned packages: the one in the checkout's
// .cache, which is made by the first run; or one in a temporary directory, where this user can't write or use that one.
func environment(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../.cache/venv")
	if err != nil {
		t.Fatal(err)
	}
	var pinned []byte
	for _, name := range []string{"requirements.txt", "requirements-lint.txt"} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		pinned = append(pinned, data...)
	}
	sum := sha256.Sum256(pinned)
	dir = filepath.Join(dir, "compat-"+hex.EncodeToString(sum[:6]))
	python := filepath.Join(dir, "bin", "python")
	if exec.Command(python, "-c", modules).Run() == nil {
		return python
	}
	if err := install(dir); err == nil {
		return python
	}
	dir = filepath.Join(t.TempDir(), "venv")
	if err := install(dir); err != nil {
		t.Fatalf("install the reader's packages: %v", err)
	}
	return filepath.Join(dir, "bin", "python")
}

// install makes an environment beside dir and gives it its name when it is complete, so that a run that was killed
// leaves none that is half done. Who comes second to the name uses what is there.
func install(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make place for environments: %w", err)
	}
	made, err := os.MkdirTemp(filepath.Dir(dir), "making-")
	if err != nil {
		return fmt.Errorf("make environment: %w", err)
	}
	defer os.RemoveAll(made)
	if err := os.Chmod(made, 0o755); err != nil {
		return fmt.Errorf("make environment: %w", err)
	}
	base, err := basePython()
	if err != nil {
		return err
	}
	python := filepath.Join(made, "bin", "python")
	for _, command := range [][]string{
		{base, "-m", "venv", made},
		{python, "-m", "pip", "install", "-q", "--no-input", "-r", "requirements.txt", "-r", "requirements-lint.txt"},
		{python, "-c", modules},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", command, err, out)
		}
	}
	if err := os.Rename(made, dir); err != nil && exec.Command(filepath.Join(dir, "bin", "python"), "-c", modules).Run() != nil {
		return fmt.Errorf("put environment in place: %w", err)
	}
	return nil
}

// basePython finds a Python that can make environments. The first on the path may be one that this user can't run.
func basePython() (string, error) {
	tried := filepath.SplitList(os.Getenv("PATH"))
	for _, dir := range slices.Concat(tried, []string{"/usr/local/bin", "/usr/bin"}) {
		python := filepath.Join(dir, "python3")
		if exec.Command(python, "-c", "import sys, venv, ensurepip; assert sys.version_info >= (3, 11)").Run() == nil {
			return python, nil
		}
	}
	return "", errors.New("no python3 of version 3.11 or newer, with the module venv, is installed")
}
