package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/test/trees"
)

// TestMain lets the test program be its own launcher, as the real one is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == measureFlag {
		exit(launch(os.Args[2:]))
	}
	os.Exit(m.Run())
}

func testReport() *report {
	r := &report{Mode: "compare", Seed: 1, Tools: []string{toolHoldfast, toolRestic, toolKopia, toolBorg}, Time: epoch(), Corpus: corpusFacts{Bytes: 2e9, Files: 3, Day2: &change{Files: 1, Pages: 100, Changed: 5}}}
	for round, x := range []float64{1, 1.2, 0.8, 1.1, 0.9} {
		for tool, factor := range map[string]float64{toolHoldfast: 5, toolRestic: 20, toolKopia: 10} {
			u := usage{Wall: x * factor, CPU: x * factor * 2, RSS: int64(factor * mega)}
			r.Runs = append(r.Runs, run{Step: stepFull, Tool: tool, Round: round, usage: u, Repository: 900e6, Added: 900e6})
		}
	}
	return r
}

func TestBestPeer(t *testing.T) {
	r := testReport()
	if got := r.bestPeer(stepFull, wall(), peers()); got != toolKopia {
		t.Errorf("best peer %q, want kopia", got)
	}
	if got := r.bestPeer(stepRestore, wall(), peers()); got != "" {
		t.Errorf("best peer of a step that nobody did: %q", got)
	}
}

func TestMarkdown(t *testing.T) {
	text := testReport().markdown()
	for _, want := range []string{
		"Corpus: 2.00 GB in 3 files", "5 of 100 database pages changed (5.0 %",
		"| full | holdfast | 5 | 5.00 [4.00–6.00] | 10.0 [8.00–12.0] | 5.00 | 900 | 900 |",
		"| full | wall | 5.00 s | kopia 10.0 s | 0.50 [", "| full | repository | 900 MB | restic 900 MB | 1.00 [1.00–1.00] | 1.03 | yes |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "|") && !strings.HasSuffix(line, "|\n") {
			t.Errorf("row %q does not end", line)
		}
	}
}

// TestRates has the rates of backups of clusters, and what a recovery is compared with.
func TestRates(t *testing.T) {
	r := &report{Mode: "postgres", Seed: 1, Tools: []string{toolHoldfast, toolBackRest, toolCopy}, Time: epoch(), Corpus: corpusFacts{Bytes: 2e9}}
	for step, tools := range map[string]map[string]float64{
		stepClusterFull: {toolHoldfast: 4, toolBackRest: 5}, stepClusterFull + serversPart: {toolHoldfast: 1, toolBackRest: 0}, stepRecovery: {toolHoldfast: 11, toolCopy: 10},
	} {
		for tool, x := range tools {
			r.Runs = append(r.Runs, run{Step: step, Tool: tool, usage: usage{Wall: x, CPU: x}})
		}
	}
	text := r.markdown()
	for _, want := range []string{
		"| holdfast | 500 | 2.00 | 2.50 | 1.00 [", "| pgbackrest | 400 | 2.50 | 2.50 | 1.25 [", "takes 1.10 [1.10–1.10] times",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if strings.Contains(text, "Corpus:") {
		t.Errorf("files are counted where there are none:\n%s", text)
	}
}

func TestPlotIsXML(t *testing.T) {
	d := xml.NewDecoder(bytes.NewReader(testReport().plot()))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestBetween(t *testing.T) {
	text := "a\n<!-- bench:scale begin -->\nold\n<!-- bench:scale end -->\nb\n"
	got, err := between(text, "scale", "new\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Replace(text, "old", "new", 1); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := between(text, "chain", ""); err == nil {
		t.Error("no error without markers")
	}
}

// The document has a place for each mode.
func TestDocumentHasMarkers(t *testing.T) {
	root, err := checkout()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "performance.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"compare", "scale", "chain", "s3", "months"} {
		if _, err := between(string(text), mode, ""); err != nil {
			t.Error(err)
		}
	}
}

func TestSaveKeepsOtherModes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.json")
	first, second := testReport(), &report{Mode: "scale", Runs: []run{{Step: stepFull, usage: usage{Wall: 1}}}}
	for _, r := range []*report{first, second} {
		if err := r.save(path); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"compare": {`, `"scale": {`, `"wall_s": 1,`} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("no %q in:\n%s", want, b)
		}
	}
}

func TestParse(t *testing.T) {
	o, err := parse([]string{"-size", "60MB", "-rounds", "1", "-files", "10,20", "-sparse", "1GB"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.size != 60e6 || !o.trial() || !cmp.Equal(o.files, []int{10, 20}) || !cmp.Equal(o.sparse, []int64{1e9}) {
		t.Errorf("parsed %+v", o)
	}
	if o, err := parse(nil, io.Discard); err != nil || o.trial() {
		t.Errorf("without flags: a trial, or %v", err)
	}
	for _, bad := range [][]string{{"-size", "x"}, {"-files", "a"}, {"-sparse", "-"}, {"word"}, {"-nothing"}} {
		if _, err := parse(bad, io.Discard); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func testLauncher(t *testing.T) *launcher {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &launcher{self: self, dir: t.TempDir(), cpus: 1}
}

func TestLauncherMeasures(t *testing.T) {
	big := bytes.Repeat([]byte{1}, 160<<20) // what the harness uses is not the tool's
	l := testLauncher(t)
	u, err := l.run(context.Background(), call("sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"))
	if err != nil {
		t.Fatal(err)
	}
	if u.RSS <= 0 || u.RSS > 80<<20 || u.CPU <= 0 || u.Wall <= 0 || big[len(big)-1] != 1 {
		t.Errorf("measured %+v", u)
	}
}

func TestLauncherReportsFailure(t *testing.T) {
	_, err := testLauncher(t).run(context.Background(), call("sh", "-c", "echo complaint; exit 3"))
	if err == nil || !strings.Contains(err.Error(), "exit code 3") || !strings.Contains(err.Error(), "complaint") {
		t.Errorf("error %v", err)
	}
	if _, err := testLauncher(t).run(context.Background(), call("no-such-program")); err == nil {
		t.Error("no error for a program that is missing")
	}
}

func TestFarCountsAndDelays(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789"), 30_000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ := io.ReadAll(r.Body)
		if r.Method == http.MethodPut && !bytes.Equal(got, body) {
			t.Errorf("%d bytes of the body arrived", len(got))
		}
		_, _ = w.Write(body)
	}))
	defer server.Close()
	const delay = 5 * time.Millisecond
	f, err := startFar(strings.TrimPrefix(server.URL, "http://"), delay)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	began := time.Now()
	for _, x := range []struct{ method, path string }{
		{http.MethodPut, "/b/k"}, {http.MethodGet, "/b/k"}, {http.MethodGet, "/b?list-type=2"}, {http.MethodHead, "/b/k"},
	} {
		var content io.Reader
		if x.method == http.MethodPut {
			content = bytes.NewReader(body)
		}
		q, err := http.NewRequest(x.method, "http://"+f.address()+x.path, content)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || x.method != http.MethodHead && !bytes.Equal(got, body) {
			t.Errorf("%s %s: %d bytes, %v", x.method, x.path, len(got), err)
		}
	}
	if took := time.Since(began); took < 5*delay { // 4 answers and a handshake
		t.Errorf("4 requests took %v", took)
	}
	// Requests are counted beside the traffic, which does not wait for that.
	want, got := map[string]int64{"PUT": 1, "GET": 1, "LIST": 1, "HEAD": 1}, map[string]int64{}
	for end := time.Now().Add(time.Minute); !cmp.Equal(want, got) && time.Now().Before(end); time.Sleep(time.Millisecond) {
		for kind, n := range f.counted() {
			got[kind] += n
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if got := f.counted(); len(got) > 0 {
		t.Errorf("counted twice: %v", got)
	}
}

func TestPrice(t *testing.T) {
	got := price(map[string]int64{"PUT": 1000, "LIST": 1000, "GET": 1000, "HEAD": 1000, "DELETE": 1000})
	if want := 0.0108; got < want-1e-9 || got > want+1e-9 {
		t.Errorf("price %v, want %v", got, want)
	}
}

// Restores are compared, and what not all tools keep does not count for the peers.
func TestDifferences(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(dir, "f"), epoch(), epoch()); err != nil {
			t.Fatal(err)
		}
	}
	if diffs, err := differences(a, b); err != nil || len(diffs) > 0 {
		t.Fatalf("%v, %v", diffs, err)
	}
	if err := overwrite(filepath.Join(b, "f"), []byte("Content")); err != nil {
		t.Fatal(err)
	}
	if diffs, err := differences(a, b); err != nil || len(diffs) == 0 {
		t.Errorf("no difference in content seen, %v", err)
	}
	if diffs := trees.Compare(a, b); len(diffs) == 0 {
		t.Error("no difference seen at all")
	}
}
