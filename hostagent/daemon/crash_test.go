package daemon

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/hostagent/daemon/journal"
	"github.com/btcdecoded/holdfast/shared/approval"
	"github.com/btcdecoded/holdfast/shared/policy"
)

func key(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func approversYAML() string {
	line := func(k ed25519.PrivateKey) string {
		w := append(binary.BigEndian.AppendUint32(nil, 11), "ssh-ed25519"...)
		w = append(binary.BigEndian.AppendUint32(w, 32), k.Public().(ed25519.PublicKey)...)
		return "ssh-ed25519 " + base64.StdEncoding.EncodeToString(w)
	}
	return "approvers:\n  - {name: one, key: " + line(key(1)) + "}\n  - {name: two, key: " + line(key(2)) + "}\n"
}

// restoreJob is a restore that two approvers have signed.
func restoreJob(t *testing.T, change func(*approval.Request)) *events.Job {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Second)
	r := &approval.Request{
		Version: 1, ID: approval.NewID(), Host: "h", Source: "h/etc", Snapshot: 3, Target: "/srv/restore/etc",
		Created: now, Expires: now.Add(time.Hour),
	}
	if change != nil {
		change(r)
	}
	request, err := approval.Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	order := &events.RestoreOrder{Request: request}
	for i, name := range []string{"one", "two"} {
		s, err := approval.Sign(request, name, key(byte(i+1)))
		if err != nil {
			t.Fatal(err)
		}
		order.Signatures = append(order.Signatures, s)
	}
	return &events.Job{Version: 1, ID: r.ID, Host: "h", Kind: events.Restore, Due: now, NotAfter: r.Expires, Restore: order}
}

// leftJob is a journal in which a job was begun that many times, as the kernel left it when it killed the agents.
func (b *bench) leftJob(job *events.Job, starts int) {
	b.t.Helper()
	j, err := journal.Open(filepath.Join(b.dir, "agent"), time.Now())
	if err != nil {
		b.t.Fatal(err)
	}
	if err := j.Accept(job, journal.FromQueue, time.Now()); err != nil {
		b.t.Fatal(err)
	}
	for range starts {
		if err := j.Start(job.ID, time.Now()); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		b.t.Fatal(err)
	}
}

// TestKilled begins after a kill -9: a job that was accepted is run, or reported failed once.
func TestKilled(t *testing.T) {
	for _, tt := range []struct {
		name   string
		starts int
		off    time.Duration // how long nothing ran
		ran    []string
		result events.Result
	}{
		{"before it began", 0, time.Minute, []string{"full etc"}, events.OK},
		{"while it ran", 1, time.Minute, []string{"full etc"}, events.OK},
		{"while it ran, and off for days", 1, 72 * time.Hour, []string{"full etc"}, events.OK},
		{"thrice while it ran", 3, time.Minute, nil, events.Failed},
		{"before it began, and it is late", 0, 2 * time.Hour, nil, events.Failed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, strings.Replace(hourly, "incremental", "differential", 1))
				b.queue = &fakeQueue{}
				job := b.job("etc", "full")
				b.leftJob(job, tt.starts)
				after := 0
				b.change = func(c *Config) {
					c.After = func(_ context.Context, _ *policy.Policy, source string) error {
						if after++; source != "etc" {
							t.Errorf("hooks of %s", source)
						}
						return nil
					}
				}
				time.Sleep(tt.off)
				b.start()
				pass(time.Minute)
				// Its message comes again, because the kill was before it was deleted.
				b.queue.sendJob(t, job)
				pass(30 * time.Second)
				b.end()
				if diff := cmp.Diff(tt.ran, b.work.did()); diff != "" {
					t.Error(diff)
				}
				if want := tt.starts / maxAttempts; after != want {
					t.Errorf("hooks after ran %d times, want %d", after, want)
				}
				told := 0
				for _, f := range b.bus.finished(t) {
					if f.Job != job.ID || f.Result != tt.result {
						t.Errorf("%+v", f)
					}
					told++
				}
				if told == 0 {
					t.Error("nobody was told")
				}
			})
		})
	}
}

// TestGracefulStop ends agents in the midst of a job.
func TestGracefulStop(t *testing.T) {
	for _, tt := range []struct {
		name     string
		takes    time.Duration
		finished bool
	}{{"a short job finishes", 30 * time.Second, true}, {"a long one is taken up", time.Hour, false}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, hourly)
				b.work.takes = tt.takes
				b.start()
				pass(10 * time.Second)
				began := time.Now()
				b.end()
				if spent := time.Since(began); spent > DefaultGrace+lastWord+time.Second {
					t.Errorf("the end took %s", spent)
				}
				if got := len(b.bus.finished(t)) == 1; got != tt.finished {
					t.Errorf("finished %v", got)
				}
				b.work.takes = 0
				b.start()
				pass(time.Second)
				if w := b.j.Waiting(); len(w) != 0 {
					t.Errorf("left: %+v", w)
				}
				b.end()
				if f := b.bus.finished(t); len(f) != 1 || f[0].Result != events.OK {
					t.Errorf("%+v", f)
				}
				want := 2
				if tt.finished {
					want = 1
				}
				if n := len(b.work.did()); n != want {
					t.Errorf("%d runs", n)
				}
			})
		})
	}
}

// TestJournalOfAFullDisk: what can't be written is not accepted, and its message stays.
func TestJournalOfAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hourly)
		b.queue = &fakeQueue{}
		a := b.agent()
		if err := b.j.Close(); err != nil { // no write succeeds any more
			t.Fatal(err)
		}
		b.queue.sendJob(t, b.job("etc", "full"))
		feed := &QueueFeed{Queue: b.queue, Name: "q", Wait: time.Second}
		if n, _, err := feed.Poll(t.Context(), a.offer); n != 0 || err == nil {
			t.Errorf("%d settled, %v", n, err)
		}
		if b.queue.left() != 1 || b.queue.deleted != 0 {
			t.Error("the message is gone and the job nowhere")
		}
	})
}

// TestRestores sends restores that may run and that may not.
func TestRestores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, approversYAML()+hourly)
		b.queue = &fakeQueue{}
		b.start()
		b.queue.sendJob(t, b.due("etc"))
		pass(time.Minute)
		good := restoreJob(t, nil)
		b.queue.sendJob(t, good)
		oneHand := restoreJob(t, nil)
		oneHand.Restore.Signatures[1] = oneHand.Restore.Signatures[0]
		b.queue.sendJob(t, oneHand)
		renamed := restoreJob(t, nil)
		renamed.ID = strings.Repeat("0", 32) // a second time under another id
		b.queue.sendJob(t, renamed)
		other := restoreJob(t, nil)
		other.Source = "app"
		b.queue.sendJob(t, other)
		b.queue.sendJob(t, restoreJob(t, func(r *approval.Request) { r.Target = "/etc" }))
		b.queue.sendJob(t, restoreJob(t, func(r *approval.Request) { r.InPlace, r.Target = true, "" }))
		b.queue.sendJob(t, restoreJob(t, func(r *approval.Request) { r.Host = "other" }))
		b.queue.sendJob(t, good) // replayed
		pass(time.Minute)
		b.end()
		if diff := cmp.Diff([]string{"full etc", "restore h/etc"}, b.work.did()); diff != "" {
			t.Error(diff)
		}
		want := map[events.RefuseCode]int{events.Forged: 3, events.NotAllowed: 2, events.Foreign: 1, events.Duplicate: 1}
		if diff := cmp.Diff(want, b.bus.refused(t)); diff != "" {
			t.Error(diff)
		}
		for _, f := range b.bus.finished(t) {
			if f.Kind == events.Restore && (f.Result != events.OK || f.Snapshot != 3 || f.Finished.Before(f.Started)) {
				t.Errorf("%+v", f)
			}
		}
	})
}

// TestRestoreByThePolicyOfNow takes an approver away while a restore waits.
func TestRestoreByThePolicyOfNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, approversYAML()+hourly)
		b.queue = &fakeQueue{}
		b.work.takes = 10 * time.Minute
		b.start()
		b.queue.sendJob(t, b.due("etc"))
		pass(10 * time.Second)
		b.queue.sendJob(t, restoreJob(t, nil))
		pass(10 * time.Second)
		b.write(hourly)
		pass(20 * time.Minute)
		b.end()
		if diff := cmp.Diff([]string{"full etc"}, b.work.did()); diff != "" {
			t.Error(diff)
		}
		if f := b.bus.finished(t); len(f) != 2 || f[1].Result != events.Failed || f[1].Kind != events.Restore {
			t.Errorf("%+v", f)
		}
	})
}

// TestPolicyIsReloaded changes the file, breaks it, and mends it.
func TestPolicyIsReloaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hourly)
		b.start()
		pass(time.Minute)
		b.write(hourly + "      app:\n        files: {roots: [/app]}\n        schedule: {full: \"0 0 * * *\", jitter: 0s}\n")
		pass(time.Minute)
		if diff := cmp.Diff([]string{"full etc", "full app"}, b.work.did()); diff != "" {
			t.Error(diff)
		}
		b.write("version: 1\nhosts: {h: {sources: {etc: {file: {}}}}}\n")
		pass(time.Minute)
		if err := b.a.Policies.Problem(); err == nil || !strings.Contains(err.Error(), "file") {
			t.Errorf("a broken policy: %v", err)
		}
		if b.a.Policies.Current().Hosts["h"].Sources["app"] == nil {
			t.Error("the old policy is gone")
		}
		b.write(strings.Replace(hourly, "  h:", "  other:", 1))
		b.reload <- struct{}{}
		synctest.Wait()
		if err := b.a.Policies.Problem(); err == nil || !strings.Contains(err.Error(), "no host h") {
			t.Errorf("a policy without this host: %v", err)
		}
		if err := os.Remove(b.policy); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if b.a.Policies.Problem() == nil {
			t.Error("a policy that is gone is no problem")
		}
		b.write(hourly)
		b.reload <- struct{}{}
		synctest.Wait()
		if err := b.a.Policies.Problem(); err != nil || b.a.Policies.Current().Hosts["h"].Sources["app"] != nil {
			t.Errorf("after all: %v", err)
		}
		b.end()
		told := 0
		for _, e := range b.bus.of(events.TypeHeartbeat) {
			if h, err := events.DecodeHeartbeat([]byte(e.Detail)); err == nil && h.Problem != "" {
				told++
			}
		}
		if told < 3 {
			t.Errorf("%d heartbeats tell what is wrong", told)
		}
	})
}

func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, hourly)
		b.queue = &fakeQueue{}
		b.change = func(c *Config) { c.Feeds[1].(*ScheduleFeed).Remote = false }
		v := b.job("etc", "full")
		v.Kind, v.Type = events.Verify, "bytes"
		b.queue.sendJob(t, v)
		a := b.agent()
		ended, err := a.Once(context.Background())
		if err != nil || len(ended) != 2 || ended[0].Kind != events.Backup || ended[1].Kind != events.Verify {
			t.Errorf("%+v, %v", ended, err)
		}
		if ended, err = a.Once(context.Background()); err != nil || len(ended) != 0 {
			t.Errorf("a second time: %+v, %v", ended, err)
		}
		if len(b.bus.finished(t)) != 2 || len(b.bus.of(events.TypeHeartbeat)) != 2 {
			t.Errorf("%+v", b.bus.got)
		}
		_ = b.j.Close()
	})
}

// TestSystemd listens where systemd would.
func TestSystemd(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	b := newBench(t, hourly)
	b.change = func(c *Config) {
		c.Systemd = NewSystemd(func(name string) (string, bool) {
			v, ok := map[string]string{"NOTIFY_SOCKET": socket, "WATCHDOG_USEC": "30000"}[name]
			return v, ok
		})
	}
	a := b.agent()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	seen := map[string]int{}
	buf := make([]byte, 100)
	read := func() {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		seen[string(buf[:n])]++
	}
	for seen["READY=1"] == 0 || seen["WATCHDOG=1"] < 3 {
		read()
	}
	stop()
	for seen["STOPPING=1"] == 0 {
		read()
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	_ = b.j.Close()
	if NewSystemd(func(string) (string, bool) { return "", false }) != nil {
		t.Error("somebody is told without a socket")
	}
}
