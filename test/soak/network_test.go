package soak

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/mem"
	"github.com/btcdecoded/holdfast/shared/objstore/open"
	"github.com/btcdecoded/holdfast/shared/objstore/retry"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/copier"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
	"github.com/btcdecoded/holdfast/shared/snapshot"
	"github.com/btcdecoded/holdfast/test/bucket"
)

// network is a bucket behind a network that breaks.
type network struct {
	t      *testing.T
	server *bucket.S3
	mu     sync.Mutex
	random *rand.Rand // guarded by mu
	// kind is the trouble of the round; guarded by mu.
	kind string
	hits atomic.Int64
}

func (n *network) one(of int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.random.IntN(of) == 0
}

func (n *network) below(m int64) int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.random.Int64N(m)
}

func (n *network) now() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.kind
}

// request decides how a request fares.
func (n *network) request(r *http.Request) bucket.Trouble {
	object := strings.Count(r.URL.Path, "/") > 1
	trouble := bucket.Pass
	switch n.now() {
	case "busy":
		trouble = []bucket.Trouble{bucket.Unavailable, bucket.Throttle}[n.below(2)]
	case "broken requests":
		trouble = []bucket.Trouble{bucket.Cut, bucket.CutAnswer, bucket.CutBody}[n.below(3)]
	case "altered requests":
		if r.Method == http.MethodPut {
			trouble = bucket.Alter
		}
	case "altered answers":
		if r.Method == http.MethodGet && object {
			trouble = bucket.AlterAnswer
		}
	}
	if trouble == bucket.Pass || !n.one(6) {
		return bucket.Pass
	}
	n.hits.Add(1)
	return trouble
}

// line decides how a connection fares.
func (n *network) line() bucket.Line {
	switch n.now() {
	case "slow":
		return bucket.Line{Delay: time.Millisecond}
	case "cut":
		if n.one(2) {
			n.hits.Add(1)
			return bucket.Line{After: n.below(2 << 20), Then: bucket.Closed}
		}
	case "half open":
		if n.one(8) {
			n.hits.Add(1)
			return bucket.Line{After: n.below(100 << 10), Then: bucket.Silent}
		}
	}
	return bucket.Line{}
}

// TestNetwork runs the command line through networks that break. Each command ends right, or says clearly what went
// wrong; what it left does no harm, and the next run without trouble completes it.
func TestNetwork(t *testing.T) {
	random := dice(t)
	n := &network{t: t, server: bucket.StartS3(t), random: rand.New(rand.NewPCG(random.Uint64(), 0))} //nolint:gosec // dice
	n.server.Make(t, "primary", bucket.Options{})
	n.server.Make(t, "copy", bucket.Options{})
	requests := bucket.StartProxy(t, n.server.Endpoint, n.request)
	lines := bucket.StartLines(t, requests.Endpoint, n.line)
	through := bucket.S3URL(lines.Endpoint, "primary", "some/prefix")
	copied := bucket.S3URL(lines.Endpoint, "copy", "")
	h := newHost(t, n.server.URL("primary", "some/prefix"))
	tree := newWorkload(t, random)
	h.run("init")
	kinds := []string{"busy", "broken requests", "altered requests", "altered answers", "slow", "cut"}
	failed := map[string]int{}
	for round := range test.troubles {
		kind := kinds[(test.seed+uint64(round))%uint64(len(kinds))] //nolint:gosec // round counts from 0
		tree.edit()
		n.set(kind)
		saved := false // else the newest snapshot is an older one
		for _, args := range [][]string{
			{"backup", "--files", tree.top, "--name", "tree", "-r", through},
			{"copy", "--to", copied, "-r", through},
			{"restore", "tree", "--to", h.path("restored"), "--delete", "-r", through},
		} {
			a := h.try(args...)
			switch {
			case a.code == 0 && args[0] == "restore" && saved:
				compare(t, kind, tree.remember(), h.path("restored"))
			case a.code == 0:
				saved = saved || args[0] == "backup"
			case a.code == 3 && kind == "altered answers" && args[0] == "restore" && strings.Contains(a.out, " is damaged at byte "):
				failed[kind]++ // what came altered is named, and not restored
			case a.code < 0 || !strings.Contains(a.errors+a.out, "error:") && !strings.Contains(a.out, "damaged:"):
				t.Fatalf("%s: %v", kind, a)
			default:
				failed[kind]++
				t.Logf("%s: %s fails: %s", kind, args[0], firstLine(a.errors+a.out))
			}
		}
		n.set("")
		h.run("backup", "--files", tree.top, "--name", "tree")
		h.run("verify", "--level", "content")
		h.run("copy", "--to", copied)
		h.run("verify", "--level", "content", "-r", copied)
		h.run("restore", "tree", "--to", h.path("restored"), "--delete", "-r", copied)
		compare(t, kind, tree.remember(), h.path("restored"))
	}
	t.Logf("%d troubles; commands that failed: %v", n.hits.Load(), failed)
}

func (n *network) set(kind string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kind = kind
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// TestHalfOpen works through connections that go silent. The default limit to silence is stall.Silence and a store gives
// up after 15 minutes without success; here both are short, but long enough for a machine that is busy with other tests.
func TestHalfOpen(t *testing.T) {
	random := dice(t)
	server := bucket.StartS3(t)
	server.Make(t, "bucket", bucket.Options{})
	n := &network{t: t, server: server, random: rand.New(rand.NewPCG(random.Uint64(), 0)), kind: "half open"} //nolint:gosec // dice
	options := open.Options{
		Silence: 2 * time.Second,
		Retry:   retry.Options{First: 10 * time.Millisecond, Longest: 100 * time.Millisecond, GiveUp: 5 * time.Minute},
	}
	lines := bucket.StartLines(t, server.Endpoint, n.line)
	store := openStore(t, bucket.S3URL(lines.Endpoint, "bucket", ""), options)
	f := repotest.New(t)
	tree := repotest.Tree{}
	for i := range 4 {
		tree[fmt.Sprintf("/srv/%d", i)] = repotest.Noise(random.Uint64(), random.IntN(300<<10))
	}
	f.Backup(t, snapshot.Full, tree)
	f.Backup(t, snapshot.Full, tree.With("/srv/new", repotest.Noise(1, 9<<20)))
	result, err := copier.Run(t.Context(), f.Repo, store, copier.Options{})
	if err != nil || !result.OK() {
		t.Fatalf("copy: %v, %+v", err, result)
	}
	f.CheckAll(t, store)
	back := mem.New()
	if result, err = copier.Run(t.Context(), f.Open(t, store), back, copier.Options{}); err != nil || !result.OK() {
		t.Fatalf("copy back: %v, %+v", err, result)
	}
	res, err := verify.Run(t.Context(), f.Open(t, back), verify.Options{Level: verify.Content})
	if err != nil || !res.OK() {
		t.Fatalf("verify: %v, %+v", err, res.Findings)
	}
	t.Logf("%d connections went silent", n.hits.Load())

	dead := bucket.StartLines(t, server.Endpoint, func() bucket.Line { return bucket.Line{Then: bucket.Silent} })
	options.Retry.GiveUp = 5 * time.Second // nothing has to succeed
	store = openStore(t, bucket.S3URL(dead.Endpoint, "bucket", ""), options)
	began := time.Now()
	_, err = repository.Open(t.Context(), store, f.Identity)
	if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "gave up after") || took > 5*time.Minute {
		t.Errorf("a server that never answers: after %s: %v", took, err)
	}
	t.Logf("after %s: %v", time.Since(began).Round(time.Millisecond), err)
}

func openStore(t *testing.T, address string, o open.Options) objstore.Store {
	t.Helper()
	s, err := open.Open(t.Context(), address, o)
	must(t, err)
	return s
}
