package restorer

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// demand is what one file system must hold.
type demand struct {
	place        string
	bytes, files uint64
	largest      uint64 // file; while it is written, the old one is there too
	frees        uint64 // bytes of files that will be replaced
}

// checkSpace tells whether the selection will fit, before anything is written, and the progress how much there is to do.
// First a quick bound that ignores what is there already; only if that does not fit, a dry run that looks.
//
// Where all of the snapshot goes to where nothing is yet, its counts are a bound that costs nothing. Elsewhere the whole
// tree is read first, so that damage in it is known before anything is replaced or removed.
func checkSpace(ctx context.Context, snap Snapshot, options Options, selections []selection, progress Progress) error {
	if c := snap.Counts(); len(options.Select) == 0 {
		enough, err := fitsNew(options, selections, c)
		if err != nil {
			return err
		}
		if enough {
			progress.Total(c.Files+c.Others, c.Bytes)
			return nil
		}
	}
	demands := map[uint64]*demand{}
	var files, content uint64
	for _, s := range selections {
		device, err := deviceOf(s.anchor.place)
		if err != nil {
			return err
		}
		d := demands[device]
		if d == nil {
			d = &demand{place: s.anchor.place}
			demands[device] = d
		}
		for e, err := range snap.Entries(ctx, s.path) {
			if err != nil {
				return err
			}
			if !snapshot.Within(s.path, e.Path) {
				break
			}
			d.files++
			d.bytes += e.DataBytes()
			if e.Type != snapshot.Directory {
				files++
				content += e.Size
			}
		}
	}
	progress.Total(files, content)
	if options.DryRun {
		return nil
	}
	for _, d := range demands {
		if lacks(options, d) != nil {
			return measureSpace(ctx, snap, options, selections)
		}
	}
	return nil
}

// fitsNew reports whether every place is new or empty, and its file system has room for all of the snapshot.
func fitsNew(options Options, selections []selection, c snapshot.Counts) (bool, error) {
	for _, s := range selections {
		if _, err := deviceOf(s.anchor.place); err != nil {
			return false, err
		}
		if !vacant(s.anchor.place) {
			return false, nil
		}
		d := &demand{place: s.anchor.place, bytes: c.Bytes, files: c.Files + c.Directories + c.Others}
		full := !options.DryRun && lacks(options, d) != nil
		if full {
			return false, nil // by this bound; the caller looks closer
		}
	}
	return true, nil
}

// vacant reports whether there is nothing at a place, or an empty directory.
func vacant(place string) bool {
	d, err := os.Open(place)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	defer d.Close() //nolint:errcheck // only read
	_, err = d.Readdirnames(1)
	return errors.Is(err, io.EOF)
}

// measureSpace finds what will really be written by a dry run.
func measureSpace(ctx context.Context, snap Snapshot, options Options, selections []selection) error {
	dry := options
	dry.DryRun, dry.OnAction = true, nil
	r := newRun(ctx, snap, dry, silent{})
	r.measure, r.demands = true, map[uint64]*demand{}
	if err := r.restore(selections); err != nil {
		return err
	}
	for _, d := range r.demands {
		d.bytes = max(d.bytes-min(d.frees, d.bytes), d.largest)
		if err := lacks(options, d); err != nil {
			return err
		}
	}
	return nil
}

// measured adds a file that will be written to the demand.
func (r *run) measured(j *job) {
	if !r.measure {
		return
	}
	need := j.entry.DataBytes()
	if len(j.entry.Maps) > 0 {
		need = 0
		_ = r.snap.Extents(r.ctx, j.entry, func(x snapshot.Extent) error { // damage is met again when it counts
			if !x.Hole {
				need += x.Length
			}
			return nil
		})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.demands[j.dir.id.device]
	if d == nil {
		d = &demand{place: r.placeOf(j.dir)}
		r.demands[j.dir.id.device] = d
	}
	d.bytes += need
	d.largest = max(d.largest, need)
	if j.existing == nil {
		d.files++
	} else if j.existing.Nlink == 1 && j.existing.Blocks > 0 {
		d.frees += uint64(j.existing.Blocks) * 512
	}
}

func (r *run) placeOf(d *directory) string {
	for d.parent != nil {
		d = d.parent
	}
	return d.name
}

// lacks compares a demand with what is free.
func lacks(options Options, d *demand) error {
	statfs := unix.Statfs
	if options.statfs != nil {
		statfs = options.statfs
	}
	var st unix.Statfs_t
	if err := statfs(existingAbove(d.place), &st); err != nil || st.Blocks == 0 {
		return nil //nolint:nilerr // a file system that does not tell; writing will
	}
	free := st.Bavail
	if os.Geteuid() == 0 {
		free = st.Bfree
	}
	free *= uint64(max(st.Frsize, 1)) //nolint:gosec // a block size
	if d.bytes > free {
		return &SpaceError{Place: d.place, Need: d.bytes, Free: free}
	}
	if st.Files > 0 && d.files > st.Ffree {
		return &SpaceError{Place: d.place, Need: d.files, Free: st.Ffree, Inodes: true}
	}
	return nil
}

// existingAbove is the place itself or what exists above it.
func existingAbove(place string) string {
	for {
		if _, err := os.Stat(place); err == nil || !errors.Is(err, os.ErrNotExist) || place == "/" {
			return place
		}
		place = filepath.Dir(place)
	}
}

func deviceOf(place string) (uint64, error) {
	st, err := stat(existingAbove(place))
	if err != nil {
		return 0, &PlaceError{Operation: "restore to", Place: place, Err: err}
	}
	return inodeOf(&st).device, nil
}
