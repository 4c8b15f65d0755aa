package guide_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/btcdecoded/holdfast/test/program"
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
	home := filepath.Join(dir, "home")
	for _, at := range []string{home, filepath.Join(dir, "bin")} {
		if err := os.Mkdir(at, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := program.Holdfast(filepath.Join(dir, "bin")); err != nil {
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
	holdfast, err := program.Holdfast(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	help, err := exec.Command(holdfast, "--help").Output()
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
