package guide_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestCommands runs all sh blocks of the guide in order, in one shell with an empty home, and stops at the first command
// that fails.
func TestCommands(t *testing.T) {
	guide, err := os.ReadFile("../../docs/guide.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(string(guide), -1)
	if len(blocks) < 10 {
		t.Fatalf("found %d blocks of commands", len(blocks))
	}
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "bin", "holdfast"), "../../hostagent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	script := "set -euo pipefail\n"
	for i, b := range blocks {
		script += fmt.Sprintf("echo '--- block %d'\n%s", i+1, b[1])
	}
	cmd := exec.Command("bash", "-x", "-c", script)
	cmd.Dir = home
	cmd.Env = []string{
		"HOME=" + home, "PATH=" + filepath.Join(dir, "bin") + ":" + os.Getenv("PATH"), "HOLDFAST_STATE=" + filepath.Join(home, ".local/state/holdfast"),
		"HOLDFAST_POLICY=",
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestEverythingIsDocumented checks that the guide names every command and every exit code of the help.
func TestEverythingIsDocumented(t *testing.T) {
	guide, err := os.ReadFile("../../docs/guide.md")
	if err != nil {
		t.Fatal(err)
	}
	run := exec.Command("go", "run", "../../hostagent", "--help")
	run.Env = append(os.Environ(), "CGO_ENABLED=0")
	help, err := run.Output()
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile(`(?m)^  ([a-z]+)  +[A-Z]`).FindAllStringSubmatch(string(help), -1)
	if len(commands) < 15 {
		t.Errorf("the help lists %d commands:\n%s", len(commands), help)
	}
	for _, c := range commands {
		if c[1] != "help" && !strings.Contains(string(guide), "holdfast "+c[1]) {
			t.Errorf("the guide does not mention `holdfast %s`", c[1])
		}
	}
	codes := regexp.MustCompile(`(?m)^  (\d+) +(.*)$`).FindAllStringSubmatch(string(help), -1)
	if len(codes) < 11 {
		t.Errorf("the help lists %d exit codes", len(codes))
	}
	plain := strings.NewReplacer("`", "").Replace(string(guide))
	for _, c := range codes {
		if row := "| " + c[1] + " | " + c[2] + " |"; !strings.Contains(plain, row) {
			t.Errorf("the guide has no row %q", row)
		}
	}
}
