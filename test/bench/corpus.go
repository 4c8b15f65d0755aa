package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// corpusFormat changes when the same options would give another corpus, so that an old one is built anew.
const corpusFormat = 1

// corpusSpec says what to build. Equal specs on the same machine give equal trees, except for what PostgreSQL chooses
// itself (its system identifier and times).
type corpusSpec struct {
	Format int    `json:"format"`
	Size   int64  `json:"size"` // bytes, about
	Seed   uint64 `json:"seed"`
	Server bool   `json:"server"` // with a PostgreSQL data directory
}

// corpusFacts is what was built.
type corpusFacts struct {
	Bytes    int64            `json:"bytes"`
	Files    int              `json:"files"`
	Symlinks int              `json:"symlinks"`
	Dirs     int              `json:"dirs"`
	Parts    map[string]int64 `json:"parts,omitempty"` // bytes of each top directory
	Day2     *change          `json:"day2,omitempty"`
}

// share is a part of the corpus, in thousandths of its size.
type share struct {
	name  string
	milli int64
}

func shares() []share {
	return []share{
		{"go", 250}, {"lib", 300}, {"share", 110}, {"sqlite", 100}, {"postgresql", 100}, {"log", 40}, {"random", 100},
	}
}

// corpus is a tree to back up and the state that it is in.
type corpus struct {
	spec corpusSpec
	dir  string // of the corpus and its undo; the tree is dir/tree
	log  func(format string, args ...any)
}

func (c *corpus) tree() string { return filepath.Join(c.dir, "tree") }
func (c *corpus) undo() string { return filepath.Join(c.dir, "undo") }

// build makes the tree, or finds it as it was built before; in the second case a day-2 change is taken back.
func (c *corpus) build(ctx context.Context) (corpusFacts, error) {
	stamp := filepath.Join(c.dir, "spec.json")
	var have corpusSpec
	if b, err := os.ReadFile(stamp); err == nil && json.Unmarshal(b, &have) == nil && have == c.spec {
		if err := c.takeBack(); err != nil {
			return corpusFacts{}, err
		}
		return survey(c.tree())
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return corpusFacts{}, err
	}
	if err := os.MkdirAll(c.tree(), 0o755); err != nil { //nolint:gosec // the server's user reads below it
		return corpusFacts{}, err
	}
	for _, s := range shares() {
		if s.name == "postgresql" && !c.spec.Server {
			continue
		}
		c.log("building the corpus: %s", s.name)
		if err := c.part(ctx, s.name, c.spec.Size*s.milli/1000); err != nil {
			return corpusFacts{}, fmt.Errorf("build corpus %s: %w", s.name, err)
		}
	}
	b, err := json.Marshal(c.spec)
	if err != nil {
		return corpusFacts{}, err
	}
	// Last: without the stamp an unfinished corpus is built anew.
	if err := os.WriteFile(stamp, b, 0o600); err != nil {
		return corpusFacts{}, err
	}
	return survey(c.tree())
}

func (c *corpus) part(ctx context.Context, name string, quota int64) error {
	dir := filepath.Join(c.tree(), name)
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // as above
		return err
	}
	random := dice(c.spec.Seed, name)
	switch name {
	case "go":
		root, modules, err := goTrees(ctx)
		if err != nil {
			return err
		}
		left, err := gather(filepath.Join(dir, "root"), filepath.Join(root, "src"), quota/2, random)
		if err != nil {
			return err
		}
		_, err = gather(filepath.Join(dir, "mod"), modules, quota-quota/2+left, random)
		return err
	case "lib":
		_, err := gather(dir, "/usr/lib", quota, random)
		return err
	case "share":
		_, err := gather(dir, "/usr/share", quota, random)
		return err
	case "sqlite":
		return makeSQLite(ctx, filepath.Join(dir, "app.db"), quota, random)
	case "postgresql":
		return makePostgreSQL(ctx, filepath.Join(dir, "data"), quota, random)
	case "log":
		return makeLogs(dir, quota, random)
	default:
		return makeRandom(dir, quota, random)
	}
}

func goTrees(ctx context.Context) (root, modules string, err error) {
	out, err := invocation{args: []string{"go", "env", "-json", "GOROOT", "GOMODCACHE"}, env: []string{
		"HOME=" + os.Getenv("HOME"), "GOPATH=" + os.Getenv("GOPATH"), "GOMODCACHE=" + os.Getenv("GOMODCACHE"),
	}}.run(ctx)
	if err != nil {
		return "", "", err
	}
	var env struct{ GOROOT, GOMODCACHE string }
	err = json.Unmarshal([]byte(out), &env)
	return env.GOROOT, env.GOMODCACHE, err
}

// survey counts what is in a tree.
func survey(tree string) (corpusFacts, error) {
	facts := corpusFacts{Parts: map[string]int64{}}
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			facts.Dirs++
		case d.Type() == fs.ModeSymlink:
			facts.Symlinks++
		default:
			i, err := d.Info()
			if err != nil {
				return err
			}
			facts.Files++
			facts.Bytes += i.Size()
			facts.Parts[topOf(tree, path)] += i.Size()
		}
		return nil
	})
	return facts, err
}

// epoch is when the corpus says that it was made; all that is generated has times near it.
func epoch() time.Time { return time.Date(2024, time.March, 4, 5, 6, 7, 0, time.UTC) }

// makeLogs writes logs as services do: few distinct lines, with times, addresses and numbers in them.
func makeLogs(dir string, quota int64, random *rand.Rand) error {
	const files = 12
	for n := range files {
		if err := makeLog(filepath.Join(dir, fmt.Sprintf("app-%02d.log", n)), quota/files, random); err != nil {
			return err
		}
	}
	return nil
}

func makeLog(path string, size int64, random *rand.Rand) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err == nil {
			err = os.Chtimes(path, epoch(), epoch())
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	events := []string{
		"GET /api/orders/%d 200", "GET /assets/%d.js 304", "POST /api/login user=%d 200", "worker job %d done",
		"slow query id=%d", "cache miss key=order:%d", "GET /api/items/%d 404", "connection %d closed by peer",
	}
	at := epoch()
	for n := int64(0); n < size; {
		at = at.Add(time.Duration(random.IntN(900)) * time.Millisecond)
		k, err := fmt.Fprintf(w, "%s app[%d]: 10.0.%d.%d "+events[random.IntN(len(events))]+" %dms\n", at.Format(time.RFC3339Nano),
			1000+random.IntN(8), random.IntN(4), random.IntN(256), random.IntN(1_000_000), random.IntN(2000))
		if err != nil {
			return err
		}
		n += int64(k)
	}
	return w.Flush()
}

// makeRandom writes what nothing compresses, as photos, videos and archives are.
func makeRandom(dir string, quota int64, random *rand.Rand) error {
	const files = 24
	buf := make([]byte, 64<<10)
	for n := range files {
		var key [32]byte
		for i := range key {
			key[i] = byte(random.Uint32())
		}
		path := filepath.Join(dir, fmt.Sprintf("media-%02d.bin", n))
		if err := fill(path, quota/files, buf, rand.NewChaCha8(key)); err != nil {
			return err
		}
	}
	return nil
}

func fill(path string, size int64, buf []byte, from *rand.ChaCha8) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err == nil {
			err = os.Chtimes(path, epoch(), epoch())
		}
	}()
	for size > 0 {
		b := buf[:min(size, int64(len(buf)))]
		_, _ = from.Read(b) // never fails
		if _, err := f.Write(b); err != nil {
			return err
		}
		size -= int64(len(b))
	}
	return nil
}
