package log_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/log"
	"github.com/btcdecoded/holdfast/shared/repository/repotest"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

const pageSize = 512

// page is what page number of a database is after commit n.
func page(number, n uint32) []byte {
	b := make([]byte, pageSize)
	binary.BigEndian.PutUint32(b, number)
	binary.BigEndian.PutUint32(b[4:], n)
	return b
}

// commit is a record of some pages.
func commit(at time.Time, n uint32, numbers ...uint32) log.Record {
	slices.Sort(numbers)
	return log.Record{
		Time: at, PageSize: pageSize, Pages: 100, Position: fmt.Append(nil, "position ", n),
		Each: func(yield func(uint32, []byte) error) error {
			for _, number := range numbers {
				if err := yield(number, page(number, n)); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// options are those of a writer that does not wait long.
func options(f *repotest.Fixture) log.Options {
	return log.Options{
		Tool: "test", Now: func() time.Time { return f.Now }, Opened: f.Now, Pause: time.Microsecond, MaxPause: time.Millisecond,
	}
}

func create(t testing.TB, f *repotest.Fixture, o log.Options) *log.Writer {
	t.Helper()
	w, err := log.Create(context.Background(), f.Repo, f.Source, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// write appends commits from first to last, a second apart, each of its own page and page 1.
func write(t testing.TB, f *repotest.Fixture, w *log.Writer, first, last uint32) log.Place {
	t.Helper()
	var place log.Place
	for n := first; n <= last; n++ {
		f.Now = f.Now.Add(time.Second)
		var err error
		if place, err = w.Append(context.Background(), commit(f.Now, n, 1, n%90+2)); err != nil {
			t.Fatal(err)
		}
	}
	return place
}

func streams(t testing.TB, repo *repository.Repository, src snapshot.Source) []log.Stream {
	t.Helper()
	all, err := log.Streams(context.Background(), repo, src)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// read returns the positions of the records of a range: which commits they are.
func read(repo *repository.Repository, src snapshot.Source, all []log.Stream, rg log.Range) ([]string, error) {
	var out []string
	for r, err := range log.NewReader(repo, src, all).Records(context.Background(), rg) {
		if err != nil {
			return out, err
		}
		out = append(out, strings.TrimPrefix(string(r.Position), "position "))
	}
	return out, nil
}

func numbers(first, last uint32) []string {
	var out []string
	for n := first; n <= last; n++ {
		out = append(out, fmt.Sprint(n))
	}
	return out
}

func check(t testing.TB, f *repotest.Fixture, rg log.Range, want []string) {
	t.Helper()
	got, err := read(f.Repo, f.Source, streams(t, f.Repo, f.Source), rg)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

func start(stream string) log.Place { return log.Place{Stream: stream} }

// large is a commit of many pages: more than one piece.
func large(at time.Time, n uint32, pages uint32) log.Record {
	return log.Record{Time: at, PageSize: 4096, Pages: pages, Position: fmt.Append(nil, "position ", n), Each: func(yield func(uint32, []byte) error) error {
		b := make([]byte, 4096)
		for number := uint32(1); number <= pages; number++ {
			binary.BigEndian.PutUint32(b, number*n)
			if err := yield(number, b); err != nil {
				return err
			}
		}
		return nil
	}}
}

func nilIfEmpty(s []string) []string {
	if len(s) == 0 {
		return nil
	}
	return s
}
