package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The environment of a process that restores in place and kills itself on the way.
const (
	killPlace = "HOLDFAST_TEST_PLACE"
	killAt    = "HOLDFAST_TEST_KILL" // step and how often it has come: "waiting 2"
	killFrom  = "HOLDFAST_TEST_CONTENT"
	killPlain = "HOLDFAST_TEST_PLAIN"
	killSick  = "HOLDFAST_TEST_SICK"
)

func TestMain(m *testing.M) {
	if place := os.Getenv(killPlace); place != "" {
		os.Exit(restoreAndDie(place))
	}
	os.Exit(m.Run())
}

// restoreAndDie is the child: it ends by SIGKILL at its step, or with 0 when the step never came.
func restoreAndDie(place string) int {
	content, err := os.ReadFile(os.Getenv(killFrom))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	at, often, _ := strings.Cut(os.Getenv(killAt), " / ")
	left, err := strconv.Atoi(often)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	a := app{sick: os.Getenv(killSick) != ""}
	o := a.options()
	o.plainRename = os.Getenv(killPlain) != ""
	o.fault = func(step string) error {
		if step == at {
			if left--; left == 0 {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}
		return nil
	}
	_, err = InPlace(context.Background(), place, opener(source(content)), o)
	var e *StepError
	if err != nil && (!errors.As(err, &e) || e.Back != nil) {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	return 0
}

// TestKilledAtEachStep kills a restore in place at each of its steps, forwards and on the way back. Whoever opens the
// database then sees the old one whole, the new one whole, or nothing at all; the next restore finishes or takes back what
// was begun, and afterwards one of them is there, whole.
func TestKilledAtEachStep(t *testing.T) {
	content := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(content, restoredBytes(t, 50), 0o600); err != nil {
		t.Fatal(err)
	}
	back := []string{"back hide", "back-wal", "back-journal", "back-shm", "back reveal"}
	for _, plain := range []string{"", "1"} {
		for _, sick := range []string{"", "1"} {
			steps := forwardSteps(plain != "")
			if sick != "" { // forwards it is the same
				steps = back
				if plain != "" {
					steps = append(steps, "waiting", "absent")
				}
			}
			for _, step := range steps {
				t.Run(fmt.Sprintf("%s plain=%s sick=%s", step, plain, sick), func(t *testing.T) {
					t.Parallel()
					for often := 1; killOnce(t, step, often, content, plain, sick); often++ {
					}
				})
			}
		}
	}
}

// killOnce reports whether the process came to the step that often.
func killOnce(t *testing.T, step string, often int, content, plain, sick string) bool {
	t.Helper()
	name := fmt.Sprintf("%s, time %d, plain %q, sick %q", step, often, plain, sick)
	place := old(t, "app.db")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killPlace+"="+place, killAt+"="+fmt.Sprintf("%s / %d", step, often), killFrom+"="+content, killPlain+"="+plain, killSick+"="+sick)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return false
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL { //nolint:errcheck,forcetypeassert // on Linux
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	crashed := state(t, place)
	if crashed != "old" && crashed != "new" && crashed != "shut" && (plain == "" || crashed != "absent") {
		t.Fatalf("%s: after the crash: %s", name, crashed)
	}
	text, err := Recover(place, Options{})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	now := state(t, place)
	switch {
	case now != "old" && now != "new":
		t.Fatalf("%s: after recovery from %q: %s", name, crashed, now)
	case crashed == "old" && now != "old":
		t.Fatalf("%s: it was not begun, and the database is another now", name)
	case text == "" && crashed != "old":
		t.Fatalf("%s: nothing was said of it", name)
	}
	list := names(t, filepath.Dir(place))
	if strings.Contains(list, "holdfast-restore") {
		t.Errorf("%s: left: %s", name, list)
	}
	if now == "new" {
		kept, err := filepath.Glob(place + ".before-*")
		if err != nil || len(kept) != 1 || state(t, filepath.Join(kept[0], "app.db")) != "old" {
			t.Errorf("%s: the safety copy is not there: %s", name, list)
		}
	} else if strings.Contains(list, ".before-") {
		t.Errorf("%s: left: %s", name, list)
	}
	if again, err := Recover(place, Options{}); again != "" || err != nil {
		t.Errorf("%s: once more: %q, %v", name, again, err)
	}
	return true
}

// TestSomebodyElse changes the place after a restore died: nothing of it is touched.
func TestSomebodyElse(t *testing.T) {
	content := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(content, restoredBytes(t, 50), 0o600); err != nil {
		t.Fatal(err)
	}
	place := old(t, "app.db")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killPlace+"="+place, killAt+"=hidden / 1", killFrom+"="+content)
	if err := cmd.Run(); err == nil {
		t.Fatal("it was not killed")
	}
	if err := os.Rename(place, place+".barrier"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(place, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := names(t, filepath.Dir(place))
	if _, err := Recover(place, Options{}); !errors.Is(err, ErrMoved) {
		t.Error(err)
	}
	if got := names(t, filepath.Dir(place)); got != before || string(read(t, place)) != "mine" {
		t.Error(got)
	}
	// Once it is out of the way, everything is put back.
	if err := os.Remove(place); err != nil {
		t.Fatal(err)
	}
	if text, err := Recover(place, Options{}); err != nil || text == "" || state(t, place) != "old" {
		t.Errorf("%q, %v, %s", text, err, state(t, place))
	}
}
