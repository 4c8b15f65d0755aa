package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// run is one measured process.
type run struct {
	Step  string `json:"step"`
	Tool  string `json:"tool"`
	Round int    `json:"round"`
	usage
	Repository int64            `json:"repository_bytes"` // after it
	Added      int64            `json:"added_bytes"`      // by it
	Requests   map[string]int64 `json:"requests,omitempty"`
}

// report is what one mode measured.
type report struct {
	Mode     string            `json:"mode"`
	Time     time.Time         `json:"time"`
	Seed     uint64            `json:"seed"`
	Machine  machine           `json:"machine"`
	Tools    []string          `json:"tools"` // or places, in the order of tables; ratios are to the first
	Versions map[string]string `json:"versions"`
	Corpus   corpusFacts       `json:"corpus"`
	Notes    []string          `json:"notes"`
	Runs     []run             `json:"runs"`
	Follows  []follow          `json:"follows,omitempty"`
}

// measure takes one number out of a run.
type measure struct {
	name, unit string
	of         func(run) float64
}

const mega = 1e6

// The measures that tables and bars use.
func wall() measure { return measure{"wall", "s", func(r run) float64 { return r.Wall }} }
func cpu() measure  { return measure{"CPU", "s", func(r run) float64 { return r.CPU }} }
func rss() measure {
	return measure{"peak RSS", "MB", func(r run) float64 { return float64(r.RSS) / mega }}
}

func size() measure {
	return measure{"repository", "MB", func(r run) float64 { return float64(r.Repository) / mega }}
}

func added() measure {
	return measure{"added", "MB", func(r run) float64 { return float64(r.Added) / mega }}
}

// values returns the measure of all rounds of a step of a tool, in order.
func (r *report) values(step, tool string, m measure) []float64 {
	var v []float64
	for _, x := range r.Runs {
		if x.Step == step && x.Tool == tool {
			v = append(v, m.of(x))
		}
	}
	return v
}

// steps lists what was measured, in the order of their first runs.
func (r *report) steps() []string {
	var names []string
	for _, x := range r.Runs {
		if !slices.Contains(names, x.Step) {
			names = append(names, x.Step)
		}
	}
	return names
}

// order sets the order of tools in tables.
func (r *report) order(tools []*tool) {
	r.Tools = nil
	for _, t := range tools {
		r.Tools = append(r.Tools, t.name)
	}
}

// bestPeer is the peer with the smallest median of a step's measure; "" if no peer did the step.
func (r *report) bestPeer(step string, m measure, peers []string) string {
	best, least := "", 0.0
	for _, p := range peers {
		v := r.values(step, p, m)
		if len(v) == 0 {
			continue
		}
		if x := median(v); best == "" || x < least {
			best, least = p, x
		}
	}
	return best
}

// save puts a report into the file that holds the newest one of each mode.
func (r *report) save(path string) error {
	all := map[string]*report{}
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(b, &all); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
	}
	all[r.Mode] = r
	b, err = json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	return replaceFile(path, append(b, '\n'))
}

// replaceFile writes a file anew so that a crash leaves the old one or the new one.
func replaceFile(path string, b []byte) error {
	unfinished := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(unfinished, b, 0o644); err != nil { //nolint:gosec // a document for everybody
		return err
	}
	return os.Rename(unfinished, path)
}
