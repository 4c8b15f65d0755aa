package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// write puts a report where it belongs: into the checkout's documents, or, after a trial, into the working directory.
func (b *bench) write(r *report) error {
	if b.trial() && !b.publish || b.never() {
		path := filepath.Join(b.dir, "trial.json")
		b.log("a trial: the documents stay as they are; results are in %s", path)
		if err := r.save(path); err != nil {
			return err
		}
		if r.Mode == "compare" {
			return replaceFile(filepath.Join(b.dir, "trial.svg"), r.plot())
		}
		return nil
	}
	if err := r.save(b.results()); err != nil {
		return err
	}
	return b.render(r)
}

func (b *bench) results() string { return filepath.Join(b.root, "test", "bench", "results.json") }

// render writes a report into the document.
func (b *bench) render(r *report) error {
	path := filepath.Join(b.root, "docs", "performance.md")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	next, err := between(string(text), r.Mode, r.markdown())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := replaceFile(path, []byte(next)); err != nil {
		return err
	}
	if r.Mode != "compare" {
		return nil
	}
	return replaceFile(filepath.Join(b.root, "docs", "performance.svg"), r.plot())
}

// renderAll writes all reports again, as after a change of what tables look like.
func (b *bench) renderAll() error {
	text, err := os.ReadFile(b.results())
	if err != nil {
		return err
	}
	all := map[string]*report{}
	if err := json.Unmarshal(text, &all); err != nil {
		return fmt.Errorf("read %s: %w", b.results(), err)
	}
	for _, mode := range slices.Sorted(maps.Keys(all)) {
		if err := b.render(all[mode]); err != nil {
			return err
		}
	}
	return nil
}

// between replaces what stands between the markers of a mode.
func between(text, mode, content string) (string, error) {
	begin, end := "<!-- bench:"+mode+" begin -->", "<!-- bench:"+mode+" end -->"
	before, rest, ok := strings.Cut(text, begin)
	if !ok {
		return "", fmt.Errorf("find %q: not there", begin)
	}
	_, after, ok := strings.Cut(rest, end)
	if !ok {
		return "", fmt.Errorf("find %q: not there", end)
	}
	return before + begin + "\n" + strings.TrimRight(content, "\n") + "\n" + end + after, nil
}
