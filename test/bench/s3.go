package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/test/bucket"
	"github.com/btcdecoded/holdfast/test/trees"
)

// Prices of S3 Standard in us-east-1 in dollars per 1,000 requests, from https://aws.amazon.com/s3/pricing/. Deleting is free.
const (
	priceWrite = 0.005  // PUT, COPY, POST, LIST
	priceRead  = 0.0004 // GET and all others
)

// host lets package bucket, which is made for tests, start its server for this program.
type host struct {
	testing.TB // nil: what is not below is not called
	dir        string
	log        func(string, ...any)
	undo       []func()
}

// fatal is what ends a call into package bucket that failed.
type fatal struct{ text string }

func (h *host) Helper()                         {}
func (h *host) Failed() bool                    { return false }
func (h *host) TempDir() string                 { return h.dir }
func (h *host) Cleanup(f func())                { h.undo = append(h.undo, f) }
func (h *host) Logf(format string, args ...any) { h.log(format, args...) }
func (h *host) Fatal(args ...any)               { panic(fatal{fmt.Sprint(args...)}) }
func (h *host) Fatalf(f string, args ...any)    { panic(fatal{fmt.Sprintf(f, args...)}) }
func (h *host) Setenv(key, value string) {
	if err := os.Setenv(key, value); err != nil {
		h.Fatal(err)
	}
}

func (h *host) close() {
	for _, f := range slices.Backward(h.undo) {
		f()
	}
}

// startS3 starts the server with one bucket.
func startS3(h *host, name string) (s *bucket.S3, err error) {
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(fatal)
			if !ok {
				panic(p)
			}
			err = fmt.Errorf("start S3 server: %s", f.text)
		}
	}()
	h.Setenv("VGW_KEEP_ALIVE", "true") // as every S3 service does: else each request pays for a new connection
	s = bucket.StartS3(h)
	s.Make(h, name, bucket.Options{})
	return s, nil
}

// s3s measures Holdfast on a local directory, on an S3 server of this machine, and on the same one far away.
func (b *bench) s3s(ctx context.Context) (*report, error) {
	const name = "bench"
	own, err := b.holdfast(ctx)
	if err != nil {
		return nil, err
	}
	c := &corpus{dir: filepath.Join(b.dir, "corpus"), log: b.log, spec: corpusSpec{Format: corpusFormat, Size: b.sizeOr(2500e6), Seed: b.seed, Server: true}}
	facts, err := c.build(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.tidy(); err != nil {
		return nil, err
	}
	h := &host{dir: filepath.Join(b.dir, "s3"), log: b.log}
	if err := errors.Join(os.RemoveAll(h.dir), os.Mkdir(h.dir, 0o700)); err != nil {
		return nil, err
	}
	defer h.close()
	server, err := startS3(h, name)
	if err != nil {
		return nil, err
	}
	far, err := startFar(strings.TrimPrefix(server.Endpoint, "http://"), b.latency)
	if err != nil {
		return nil, err
	}
	defer far.close()
	r := b.newReport("s3", []*tool{own})
	r.Corpus = facts
	r.Notes = append(r.Notes, "the server is versitygw on the same CPUs, so that its work is part of the wall time; connections are kept",
		fmt.Sprintf("far: each round trip, also that of a new connection, takes %v longer", b.latency))
	d := &distances{stage: &stage{bench: b, tree: c.tree(), report: r, restores: true}, server: server, far: far, bucket: name, own: own}
	rounds := 5
	if b.rounds > 0 {
		rounds = b.rounds
	}
	for round := range rounds {
		if err := d.round(ctx, round+1); err != nil {
			return nil, err
		}
	}
	r.Notes = append(r.Notes, r.requestNotes()...)
	return r, errors.Join(os.RemoveAll(h.dir), b.tidy())
}

// distances measures at several places.
type distances struct {
	*stage
	own    *tool
	server *bucket.S3
	far    *far
	bucket string
}

// round measures a full and a restore at each place, each with an empty repository of its own.
func (d *distances) round(ctx context.Context, round int) error {
	local, near, away := *d.own, *d.own, *d.own
	local.name, near.name, away.name = "local directory", "S3 server", "S3 server, far"
	prefix := func(where string) string { return fmt.Sprintf("%s-%d", where, round) }
	places := []struct {
		*tool
		url string
	}{
		{&local, ""},
		{&near, d.server.URL(d.bucket, prefix("near"))},
		{&away, bucket.S3URL("http://"+d.far.address(), d.bucket, prefix("far"))},
	}
	d.report.order([]*tool{&local, &near, &away})
	d.tools = nil // each place is prepared in its turn
	if err := d.prepareRound(ctx, stepFull); err != nil {
		return err
	}
	for i := range places {
		at := places[(i+round)%len(places)]
		p := d.place(at.tool, round)
		p.url = at.url
		if err := os.Mkdir(p.home, 0o700); err != nil {
			return err
		}
		for _, c := range at.prepare(p) {
			c.env = append(c.env, d.server.Env()...)
			if _, err := c.run(ctx); err != nil {
				return err
			}
		}
		for _, step := range []string{stepFull, stepRestore} {
			if err := d.measure(ctx, at.tool, step, round, p); err != nil {
				return err
			}
		}
		if round == 1 {
			if diffs := trees.Compare(d.tree, p.out); len(diffs) > 0 {
				return fmt.Errorf("restore from %s differs, %d times: %s", at.name, len(diffs), diffs[0])
			}
		}
	}
	return nil
}

func (d *distances) measure(ctx context.Context, t *tool, step string, round int, p place) error {
	i, _ := t.at(step, p)
	i.env = append(i.env, d.server.Env()...)
	stored := func() (int64, error) {
		if p.url == "" {
			return bytesBelow(p.repository())
		}
		where, _, _ := strings.Cut(strings.TrimPrefix(p.url, "s3://"), "?")
		return bytesBelow(filepath.Join(d.server.Dir, where))
	}
	before, err := stored()
	if err != nil {
		return err
	}
	d.far.counted()
	unix.Sync()
	u, err := d.launcher.run(ctx, i)
	if err != nil {
		return fmt.Errorf("%s at %s, round %d: %w", step, t.name, round, err)
	}
	requests := d.far.counted()
	after, err := stored()
	if err != nil {
		return err
	}
	d.report.Runs = append(d.report.Runs, run{Step: step, Tool: t.name, Round: round, usage: u, Repository: after, Added: after - before, Requests: requests})
	d.log("%-10s %-16s round %2d: %7.2f s, CPU %7.2f s, %5.0f MB peak, %v", step, t.name, round, u.Wall, u.CPU, float64(u.RSS)/mega, requests)
	return nil
}

// requestNotes says what the requests of each step cost for a GB of files.
func (r *report) requestNotes() []string {
	var notes []string
	for _, step := range r.steps() {
		for _, x := range slices.Backward(r.Runs) {
			if x.Step != step || len(x.Requests) == 0 {
				continue
			}
			gb := float64(r.Corpus.Bytes) / 1e9
			var parts []string
			for _, kind := range slices.Sorted(maps.Keys(x.Requests)) {
				parts = append(parts, fmt.Sprintf("%.0f %s", float64(x.Requests[kind])/gb, kind))
			}
			notes = append(notes, fmt.Sprintf("requests for 1 GB of files, %s: %s; $%.5f",
				step, strings.Join(parts, ", "), price(x.Requests)/gb))
			break
		}
	}
	return notes
}

// price of requests by kind in dollars.
func price(requests map[string]int64) float64 {
	var sum float64
	for kind, n := range requests {
		switch kind {
		case "PUT", "POST", "LIST":
			sum += float64(n) * priceWrite / 1000
		case "DELETE":
		default:
			sum += float64(n) * priceRead / 1000
		}
	}
	return sum
}
