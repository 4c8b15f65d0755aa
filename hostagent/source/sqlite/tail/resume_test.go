package tail

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/btcdecoded/holdfast/shared/sqlite"
)

// position survives the state directory.
func position(t *testing.T, r *replica) Position {
	t.Helper()
	b, err := json.Marshal(r.tail.Position())
	must(t, err)
	var p Position
	must(t, json.Unmarshal(b, &p))
	if p != r.tail.Position() {
		t.Fatalf("%s is read as %+v", b, p)
	}
	return p
}

// resume has another tail go on, as after a restart of the agent.
func resume(t *testing.T, r *replica, p Position) error {
	t.Helper()
	must(t, r.tail.Close())
	tail, err := Open(r.path)
	must(t, err)
	t.Cleanup(func() { _ = tail.Close() })
	r.tail = tail
	return tail.Resume(p)
}

func TestResume(t *testing.T) {
	t.Parallel()
	libraries(t, func(t *testing.T, library string) {
		t.Parallel()
		a := database(t, library)
		a.add(3)
		r := follow(t, a.path)
		resumed := func(commits int) {
			t.Helper()
			must(t, resume(t, r, position(t, r)))
			r.want(commits)
			r.same(a)
		}
		resumed(0)
		a.add(2)
		resumed(2)
		a.run("PRAGMA wal_checkpoint(PASSIVE)")
		a.add(1)
		if err := resume(t, r, position(t, r)); gapOf(err) != Unproven { // the log was reset
			t.Fatal(err)
		}
		r.rebase()
		// All is in the file when we stop.
		a.run("PRAGMA wal_checkpoint(PASSIVE)")
		waitFor(t, func() bool { r.want(0); return r.tail.Position().File != (Stamp{}) })
		a.add(3) // resets the log
		resumed(3)
		a.run("PRAGMA wal_checkpoint(RESTART)")
		resumed(0)
		a.run("PRAGMA wal_checkpoint(RESTART)")
		a.kill()
		a = startApp(t, library, a.path)
		a.run("SELECT count(*) FROM t")
		resumed(0)
		a.add(2)
		resumed(2)
		a.kill()
		resumed2 := func(commits int) {
			t.Helper()
			must(t, resume(t, r, position(t, r)))
			r.want(commits)
		}
		resumed2(0)
		a = startApp(t, library, a.path)
		a.add(1)
		resumed(1)
		a.close(0)
		waitFor(t, func() bool { r.want(0); return r.tail.Position().File != (Stamp{}) })
		resumed2(0)
		r.identical()
		a.add(1)
		resumed(1)
		// And what is not the same place.
		p := position(t, r)
		for cause, change := range map[Cause]func(*Position){
			Replaced: func(p *Position) { p.Inode++ },
			PageSize: func(p *Position) { p.PageSize = 512 },
			Rewound:  func(p *Position) { p.Checksum[1]++ },
			Unproven: func(p *Position) { p.Salt[1]++ },
		} {
			q := p
			change(&q)
			if err := resume(t, r, q); gapOf(err) != cause {
				t.Errorf("%s: %v", cause, err)
			}
		}
	})
}

func gapOf(err error) Cause {
	var gap *GapError
	if errors.As(err, &gap) {
		return gap.Cause
	}
	return ""
}

// TestPowerFailure has the end of the log lost, and other commits take its place.
func TestPowerFailure(t *testing.T) {
	t.Parallel()
	for _, alive := range []bool{true, false} {
		for _, after := range []int{0, 2, 5, 9} {
			t.Run(fmt.Sprintf("alive %v, %d commits after", alive, after), func(t *testing.T) {
				t.Parallel()
				a := database(t, python)
				a.add(3)
				r := follow(t, a.path)
				early := position(t, r)
				frames := r.tail.Position().Frames
				a.add(5)
				r.want(5)
				p := position(t, r)
				a.kill()
				if alive {
					r.want(0)
				}
				log, err := os.OpenFile(a.path+"-wal", os.O_RDWR, 0)
				must(t, err)
				at := sqlite.FrameOffset(frames+3, 4096)
				_, err = log.WriteAt(make([]byte, 4120), at) // one frame never got to the disk; later ones did
				must(t, err)
				must(t, log.Close())
				a = startApp(t, python, a.path)
				a.run("PRAGMA wal_autocheckpoint=0", "SELECT count(*) FROM t")
				a.add(after)
				if alive {
					r.gap(Rewound, 0)
				} else if err := resume(t, r, p); gapOf(err) != Rewound {
					t.Fatal(err)
				}
				if err := resume(t, r, early); err != nil {
					t.Fatal(err) // what was before is there
				}
				r.rebase()
				r.same(a)
			})
		}
	}
}

// TestOverwrittenUnseen has an old copy put over the file while nobody follows it, with the log of before still beside it:
// all of that was in the file, so nothing but a checkpoint of what came after it may have written there.
func TestOverwrittenUnseen(t *testing.T) {
	t.Parallel()
	for _, alive := range []bool{true, false} {
		a := database(t, python)
		a.add(3)
		a.run("PRAGMA wal_checkpoint(PASSIVE)")
		old, err := os.ReadFile(a.path)
		must(t, err)
		a.add(3)
		a.run("PRAGMA wal_checkpoint(PASSIVE)")
		r := follow(t, a.path)
		waitFor(t, func() bool { r.want(0); return r.tail.Position().File != (Stamp{}) })
		p := position(t, r)
		must(t, resume(t, r, p))
		if !alive {
			a.kill()
			must(t, resume(t, r, p))
		}
		if err := overwrite(a.path, old); err != nil {
			t.Fatal(err)
		}
		if err := resume(t, r, p); gapOf(err) != Unproven {
			t.Errorf("alive %v: %v", alive, err)
		}
		if alive {
			a.kill()
		}
	}
}

// overwrite puts other content into a file that stays the same one.
func overwrite(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}
