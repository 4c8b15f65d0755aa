package postgres

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/btcdecoded/holdfast/hostagent/pgserver"
	"github.com/btcdecoded/holdfast/hostagent/restorer/inplace"
	"github.com/btcdecoded/holdfast/test/cluster"
)

// old makes a data directory in which something else is.
func (w *world) old(name string) string {
	w.t.Helper()
	place := filepath.Join(w.place, name)
	if err := errors.Join(os.Mkdir(place, 0o700), os.WriteFile(filepath.Join(place, "PG_VERSION"), []byte("old"), 0o600)); err != nil {
		w.t.Fatal(err)
	}
	w.Owner.Give(w.t, place)
	return place
}

// state says what is in a place.
func state(place string) string {
	text, err := os.ReadFile(filepath.Join(place, "PG_VERSION"))
	switch {
	case err != nil:
		return "absent"
	case string(text) == "old":
		return "old"
	case !missing(filepath.Join(place, spoolName)):
		return "unfinished"
	}
	return "new"
}

// beside lists what is beside a place, without the place.
func beside(t *testing.T, place string) string {
	t.Helper()
	list, err := os.ReadDir(filepath.Dir(place))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		if strings.Contains(e.Name(), filepath.Base(place)) && e.Name() != filepath.Base(place) {
			out = append(out, e.Name())
		}
	}
	return strings.Join(out, " ")
}

// TestInPlace exchanges a data directory, with hooks that work, that fail, and with a server in the way.
func TestInPlace(t *testing.T) {
	w := newWorld(t, cluster.Options{})
	w.base()
	at := w.insert(2)
	w.ship()
	w.Psql("DELETE FROM kept")
	w.ship()
	var said []string
	hook := func(word string, err error) func(context.Context) error {
		return func(context.Context) error { said = append(said, word); return err }
	}
	sick := errors.New("no connection")
	o := w.options(Target{Kind: Time, Time: at})
	o.Stop, o.Start, o.Healthy = hook("stop", nil), hook("start", nil), hook("health", nil)

	place := w.old("main")
	umask := syscall.Umask(0o077) // as root has it on hardened hosts
	r, err := InPlace(context.Background(), place, w.opener(), o)
	syscall.Umask(umask)
	if err != nil {
		t.Fatal(err)
	}
	if got := w.rows(place); got != "2" || state(r.Safety) != "old" || fmt.Sprint(said) != "[stop start health]" {
		t.Errorf("%s, %s %s, %v", got, r.Safety, state(r.Safety), said)
	}
	if got := beside(t, place); got != filepath.Base(r.Safety) {
		t.Errorf("beside it: %s", got)
	}

	for name, healthy := range map[string]bool{"health": false, "start": true} {
		said = nil
		place := w.old("sick-" + name)
		o.Start, o.Healthy = hook("start", nil), hook("health", sick)
		if healthy {
			o.Start = hook("start", sick)
		}
		_, err := InPlace(context.Background(), place, w.opener(), o)
		var e *StepError
		if !errors.As(err, &e) || !errors.Is(err, sick) || e.Back != nil || state(place) != "old" || state(e.Failed) != "new" {
			t.Errorf("%s: %v: %s", name, err, state(place))
		}
		if got := beside(t, place); e != nil && got != filepath.Base(e.Failed) {
			t.Errorf("beside it: %s", got)
		}
		t.Log(said)
	}

	// A stop hook that fails costs nothing, and what it has stopped is started.
	said = nil
	place = w.old("busy")
	o.Stop, o.Start, o.Healthy = hook("stop", sick), hook("start", nil), nil
	if _, err := InPlace(context.Background(), place, w.opener(), o); !errors.Is(err, sick) || state(place) != "old" || beside(t, place) != "" || fmt.Sprint(said) != "[stop start]" {
		t.Errorf("%v: %s, %s, %v", err, state(place), beside(t, place), said)
	}
	// A server that still runs is in the way.
	o.Stop, o.Start = nil, nil
	if _, err := InPlace(context.Background(), w.Dir, w.opener(), o); !errors.Is(err, ErrInUse) || !w.Running() {
		t.Error(err)
	}
	if got := w.Psql("SELECT count(*) FROM kept"); got != "0" {
		t.Error(got)
	}
	testInUse(t, w)
	// Where the disk was lost, so is what was above.
	_, err = InPlace(context.Background(), filepath.Join(w.place, "lost", "15", "main"), func(context.Context) (*Source, error) { return nil, sick }, o)
	if !errors.Is(err, sick) {
		t.Errorf("%v", err)
	}
}

// testInUse does not put anything back under a server that runs in the place.
func testInUse(t *testing.T, w *world) {
	place := w.Dir
	id, err := inplace.Identify(place)
	if err != nil {
		t.Fatal(err)
	}
	work, err := inplace.OpenWork(place, 0o711)
	if err != nil {
		t.Fatal(err)
	}
	x := &exchange{place: place, work: work, options: &Options{}}
	if err := os.Mkdir(x.fresh(), 0o700); err != nil {
		t.Fatal(err)
	}
	old, err := inplace.Identify(x.fresh())
	if err != nil {
		t.Fatal(err)
	}
	if err := work.Mark(marker{Phase: phaseBack, Safety: place + ".before-x", Failed: place + ".failed-x", Old: old, New: id}); err != nil {
		t.Fatal(err)
	}
	work.Leave()
	if _, err := Recover(place, Options{}); !errors.Is(err, ErrInUse) {
		t.Errorf("%v", err)
	}
	if now, err := inplace.Identify(place); err != nil || now != id {
		t.Errorf("it was moved: %v, %v", now, err)
	}
	if err := os.RemoveAll(work.Path); err != nil {
		t.Fatal(err)
	}
}

// What a process that restores in place and kills itself on the way is told.
const (
	killPlace = "HOLDFAST_TEST_PLACE"
	killAt    = "HOLDFAST_TEST_KILL"
	killWorld = "HOLDFAST_TEST_WORLD"
	killPlain = "HOLDFAST_TEST_PLAIN"
	killSick  = "HOLDFAST_TEST_SICK"

	killBeside = "HOLDFAST_TEST_BESIDE"
)

// packed is a world for another process.
type packed struct {
	Source          Source
	Timeline        uint32
	End             uint64
	Size            uint64
	Records         []Record
	Store, Identity string
	Program, Server string
	UID             int
}

func (w *world) pack() string {
	w.t.Helper()
	s := w.source()
	p := packed{
		Source: w.src, Timeline: s.Log.Timeline, End: uint64(s.Log.End), Size: w.size, Records: w.records, Store: w.store, Identity: w.identity,
		Program: w.program, Server: filepath.Join(w.BinDir, "postgres"), UID: w.Owner.UID,
	}
	p.Source.Base = nil
	path := filepath.Join(w.t.TempDir(), "world")
	f, err := os.Create(path)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := errors.Join(gob.NewEncoder(f).Encode(p), f.Close()); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func (p *packed) open(context.Context) (*Source, error) {
	base, err := openSnapshot(p.Store, p.Identity)
	if err != nil {
		return nil, err
	}
	w := &world{src: p.Source, records: p.Records, size: p.Size}
	w.src.Base = base
	s := w.source()
	return s, nil
}

// restoreAndDie is the child: it ends by SIGKILL at its step, or with 0 when the step never came.
func restoreAndDie() int {
	f, err := os.Open(os.Getenv(killWorld))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	var p packed
	if err := gob.NewDecoder(f).Decode(&p); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	o := Options{
		Target: Target{Kind: Latest}, Fetch: []string{p.Program, fetchWord}, RunAs: strconv.Itoa(p.UID),
		Program:     func(context.Context, int) (string, error) { return p.Server, nil },
		plainRename: os.Getenv(killPlain) != "",
		Prove:       func(context.Context, *pgserver.Server) error { return nil },
	}
	if os.Getenv(killSick) != "" {
		o.Healthy = func(context.Context) error { return errors.New("not well") }
	}
	o.fault = func(step string) error {
		if step == os.Getenv(killAt) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	}
	if os.Getenv(killBeside) != "" {
		_, err = ToDir(context.Background(), os.Getenv(killPlace), p.open, o)
	} else {
		_, err = InPlace(context.Background(), os.Getenv(killPlace), p.open, o)
	}
	var e *StepError
	if err != nil && (!errors.As(err, &e) || e.Back != nil) {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	return 0
}

// testKilled kills a restore in place at each of its steps, forwards and on the way back. Nothing but the old or
// the new cluster, whole, is ever in the place; no server goes on; and the next one settles what is left.
func testKilled(t *testing.T, w *world) {
	file := w.pack()
	w.killedBeside(t, file)
	for _, c := range []struct{ step, plain, sick, after, settled string }{
		{StepLayOut, "", "", "old", "old"},
		{StepRecover, "", "", "old", "old"},
		{StepPromote, "", "", "old", "old"},
		{StepFinish, "", "", "old", "old"},
		{"exchange", "", "", "old", "old"},
		{"keep", "", "", "new", "new"},
		{"back", "", "1", "new", "old"},
		{"back keep", "", "1", "old", "old"},
		{"absent", "1", "", "absent", "old"},
	} {
		name := strings.ReplaceAll(c.step, " ", "-") + c.plain + c.sick
		place := w.old("killed-" + name)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killPlace+"="+place, killAt+"="+c.step, killWorld+"="+file, killPlain+"="+c.plain, killSick+"="+c.sick)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL { //nolint:errcheck,forcetypeassert // on Linux
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		if got := state(place); got != c.after {
			t.Errorf("%s: after the crash: %s", name, got)
		}
		text, err := Recover(place, Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := state(place); got != c.settled {
			t.Errorf("%s: settled: %s", name, got)
		}
		if pid := pgserver.Postmaster(filepath.Join(inplace.WorkOf(place), filepath.Base(place))); pid != 0 {
			t.Errorf("%s: a server runs", name)
		}
		left := beside(t, place)
		if strings.Contains(left, "holdfast-restore") || c.settled == "old" && strings.Contains(left, ".before-") || c.settled == "new" && !strings.Contains(left, ".before-") {
			t.Errorf("%s: left: %s", name, left)
		}
		if again, err := Recover(place, Options{}); again != "" || err != nil {
			t.Errorf("%s: once more: %q, %v", name, again, err)
		}
		t.Logf("%s: %s", name, text)
	}
}

// killedBeside kills a restore to a directory: what is left is no cluster, and the next one to there removes it.
func (w *world) killedBeside(t *testing.T, file string) {
	t.Helper()
	dir := filepath.Join(w.place, "beside")
	for _, step := range []string{StepRecover, StepFinish} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killPlace+"="+dir, killAt+"="+step, killWorld+"="+file, killBeside+"=1")
		if err := cmd.Run(); err == nil {
			t.Fatalf("%s: it was not killed", step)
		}
		if got := state(dir); got != "unfinished" {
			t.Errorf("%s: %s", step, got)
		}
	}
	r, err := ToDir(context.Background(), dir, w.opener(), w.options(Target{Kind: Latest}))
	if err != nil || r.Settled == "" || state(dir) != "new" {
		t.Errorf("%v, %+v", err, r)
	}
}
