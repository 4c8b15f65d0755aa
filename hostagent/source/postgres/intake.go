package postgres

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"strconv"

	"github.com/btcdecoded/holdfast/hostagent/source/inode"
	"github.com/btcdecoded/holdfast/hostagent/source/paged"
	"github.com/btcdecoded/holdfast/hostagent/source/postgres/wire"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// archive takes in the tar of a tablespace.
func (c *capture) archive(ctx context.Context, a wire.Archive) error {
	prefix := ""
	if a.OID != 0 {
		prefix = path.Join("pg_tblspc", strconv.FormatUint(uint64(a.OID), 10))
	}
	files := tar.NewReader(c.backup)
	for first := true; ; first = false {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return c.disturbed(err)
		}
		if first && prefix != "" {
			dir := *h
			dir.Typeflag, dir.Name = tar.TypeDir, ""
			if err := c.thing(ctx, prefix, &dir, nil); err != nil {
				return err
			}
		}
		rel := path.Join(prefix, path.Clean("/" + h.Name)[1:])
		if err := c.thing(ctx, rel, h, files); err != nil {
			return err
		}
	}
}

// disturbed is an error in the midst of an archive.
func (c *capture) disturbed(err error) error {
	var wired *wire.Error
	if errors.As(err, &wired) {
		return err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrHeader) {
		return c.failed("run the backup again", "an archive of the base backup is damaged: %w", err)
	}
	return err
}

// thing takes in one thing of an archive; rel is its path below the data directory.
func (c *capture) thing(ctx context.Context, rel string, h *tar.Header, content io.Reader) error {
	if c.owner == nil {
		c.owner = h
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if rel == "base" {
			c.mode = h.Mode
		}
		c.result.Counts.Directories++
		return c.all.add(c.entry(rel, h, snapshot.Directory))
	case tar.TypeSymlink:
		e := c.entry(rel, h, snapshot.Symlink)
		e.Target = h.Linkname
		c.result.Counts.Others++
		return c.all.add(e)
	case tar.TypeReg:
		return c.file(ctx, rel, h, content)
	}
	return c.failed("", "%s is a thing of the unknown type %q", rel, h.Typeflag)
}

// entry describes a thing as the server does.
func (c *capture) entry(rel string, h *tar.Header, t snapshot.Type) *snapshot.Entry {
	e := &snapshot.Entry{
		Path: path.Join(c.root, rel), Type: t, Mode: uint32(h.Mode & 0o7777), UID: uint32(h.Uid), GID: uint32(h.Gid),
		MTime: snapshot.Time{Sec: h.ModTime.Unix(), Nsec: uint32(h.ModTime.Nanosecond())},
	}
	e.User, e.Group = c.names.ofHeader(h)
	if h.ModTime.After(c.newest) {
		c.newest = h.ModTime
	}
	return e
}

// names are those of users and groups: of this host where the server is on it, else what the server says.
type names struct {
	local bool
	of    *inode.Names
}

func (n names) ofHeader(h *tar.Header) (user, group string) {
	if n.local {
		return n.of.Of(uint32(h.Uid), uint32(h.Gid))
	}
	return h.Uname, h.Gname
}

// castagnoli is the polynomial of the manifest's checksums.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// file takes in a file.
func (c *capture) file(ctx context.Context, rel string, h *tar.Header, content io.Reader) error {
	e := c.entry(rel, h, snapshot.File)
	before, err := c.before.find(e.Path)
	if err != nil {
		return err
	}
	c.progress.Current(e.Path)
	f := &incoming{entry: e, before: before, rel: rel, size: uint64(h.Size), content: content, look: c.look(rel, uint64(h.Size))}
	if err := c.store(ctx, f); err != nil {
		return err
	}
	return c.seen(rel, f)
}

// store stores the content of a file.
func (c *capture) store(ctx context.Context, f *incoming) error {
	c.result.Counts.ReadBytes += f.size
	if f.size >= paged.MinSize {
		return c.byPages(ctx, f)
	}
	return c.small.take(ctx, f)
}

// incoming is a file that comes in.
type incoming struct {
	entry   *snapshot.Entry
	before  *snapshot.Entry // the parent's; nil: none
	rel     string
	size    uint64
	content io.Reader
	look    func(at uint64, part []byte) error // sees all bytes in order; nil: nobody looks
	crc     uint32
}

// read fills p with the next bytes, which are those from an offset on.
func (c *capture) read(f *incoming, at uint64, p []byte) error {
	for len(p) > 0 {
		part := p[:min(len(p), readStep)]
		if _, err := io.ReadFull(f.content, part); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return c.disturbed(fmt.Errorf("%s: %w", f.rel, err))
		}
		f.crc = crc32.Update(f.crc, castagnoli, part)
		if f.look != nil {
			if err := f.look(at, part); err != nil {
				return err
			}
		}
		c.progress.Add(0, uint64(len(part)), uint64(len(part)))
		at += uint64(len(part))
		p = p[len(part):]
	}
	return nil
}
