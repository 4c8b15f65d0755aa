package soak

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/test/writer"
)

// superseded is the exit code of a follower that has seen another write its stream.
const superseded = 13

// TestFollowerClones has two machines, of which one is a clone, write the log of the same source: one of them stops and
// says so, the other goes on, and nothing is lost that was durable.
func TestFollowerClones(t *testing.T) {
	random := dice(t)
	d := newDatabase(t, newHost(t, ""), random)
	d.modes = []string{writer.None} // its log is not reset: all go on with the same stream
	d.start()
	d.awaitDatabase()
	d.follow()
	d.awaitFollowing()
	own := d.env
	for round := range test.clones {
		clone := d.host.path("clone")
		must(t, os.RemoveAll(clone))
		live := round%2 == 1 // it is cloned while it writes, or else at rest
		if !live {
			d.follower.kill()
		}
		must(t, os.CopyFS(clone, os.DirFS(d.host.path("state"))))
		if live {
			time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
			d.follower.kill()
		}
		d.env = append(own[:len(own):len(own)], "HOLDFAST_STATE="+clone)
		d.follow()
		other := d.follower
		if live {
			d.awaitFollowing() // the clone has taken over before the first one comes again
		}
		d.env = own
		d.follow()
		d.outlives(other)
		d.awaitFollowing()
		d.check(1)
		// The survivor goes on as the machine itself.
		if d.follower == other {
			d.follower.end()
			must(t, os.RemoveAll(d.host.path("state")))
			must(t, os.CopyFS(d.host.path("state"), os.DirFS(clone)))
			d.follow()
			d.awaitFollowing()
		}
		// What the log has by now goes into the file, and the next one begins while somebody follows.
		d.application.end()
		d.start()
		d.awaitFollowing()
	}
	d.endAll()
	d.run("verify", "--level", "content")
	t.Logf("%d clones; %d snapshots, %d gaps", test.clones, d.snapshots, d.gaps)
}

// outlives waits until one of two followers has stopped because of the other, which is the follower from then on.
func (d *database) outlives(other *process) {
	d.t.Helper()
	first := d.follower
	var ended *process
	var err error
	select {
	case err = <-first.done:
		ended, d.follower = first, other
	case err = <-other.done:
		ended = other
	case <-time.After(2 * time.Minute):
		d.t.Fatalf("two write the same log, and none of them stops\n%s\n%s", first.errs.String(), other.errs.String())
	}
	exit, ok := err.(*exec.ExitError) //nolint:errorlint // that of Wait
	if !ok || exit.ExitCode() != superseded {
		d.t.Fatalf("the one that stops says %v\n%s", err, ended.errs.String())
	}
}
