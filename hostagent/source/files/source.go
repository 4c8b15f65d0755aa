package files

import (
	"golang.org/x/sys/unix"
)

// run is a run of a file: a hole or data.
type run struct {
	hole   bool
	length uint64
}

// source reads a file's data as one stream and notes between which bytes holes are.
type source struct {
	sys    *system
	fd     int
	size   uint64 // nothing after this is read, so that a growing file has an end
	sparse bool   // ask for holes

	at      uint64 // where to go on
	dataEnd uint64 // where the data that at is in ends
	runs    []run  // read, not taken yet
	ended   bool
}

// note appends to the runs.
func (s *source) note(hole bool, length uint64) {
	if length == 0 {
		return
	}
	if n := len(s.runs); n > 0 && s.runs[n-1].hole == hole {
		s.runs[n-1].length += length
		return
	}
	s.runs = append(s.runs, run{hole: hole, length: length})
}

// read reads up to len(p) bytes of data. It sets ended with the last of them, or if there are none.
func (s *source) read(p []byte) (int, error) {
	if s.at >= s.dataEnd {
		if err := s.seek(); err != nil {
			return 0, err
		}
		if s.at >= s.size {
			s.ended = true
			return 0, nil
		}
	}
	n, err := s.sys.pread(s.fd, p[:min(uint64(len(p)), s.dataEnd-s.at)], int64(s.at))
	if err != nil {
		return 0, err
	}
	if n == 0 { // the file became shorter
		s.ended = true
		return 0, nil
	}
	s.note(false, uint64(n))
	s.at += uint64(n)
	s.ended = s.at >= s.size
	return n, nil
}

// seek notes the hole at s.at, if there is one, and finds the end of the data after it.
func (s *source) seek() error {
	if !s.sparse {
		s.dataEnd = s.size
		return nil
	}
	data, err := unix.Seek(s.fd, int64(s.at), unix.SEEK_DATA)
	switch {
	case err == unix.ENXIO: //nolint:errorlint // a bare errno: no data after at
		s.skip(s.size)
		s.dataEnd = s.size
		return nil
	case err == unix.EINVAL: //nolint:errorlint // the file system does not know holes
		s.sparse, s.dataEnd = false, s.size
		return nil
	case err != nil:
		return err
	}
	s.skip(min(uint64(data), s.size))
	hole, err := unix.Seek(s.fd, data, unix.SEEK_HOLE)
	if err != nil {
		s.sparse, s.dataEnd = false, s.size
		return nil //nolint:nilerr // without holes the content is the same
	}
	s.dataEnd = min(uint64(hole), s.size)
	return nil
}

func (s *source) skip(to uint64) {
	s.note(true, to-s.at)
	s.at = to
}

// take removes the runs of the next length bytes of data and of the holes before and, at the end of the file, after them.
func (s *source) take(length uint64) []run {
	n := 0
	for n < len(s.runs) && (s.runs[n].hole && (length > 0 || s.ended) || length > 0) {
		r := s.runs[n]
		if !r.hole && r.length > length {
			break
		}
		if !r.hole {
			length -= r.length
		}
		n++
	}
	taken := append([]run(nil), s.runs[:n]...)
	s.runs = s.runs[n:]
	if length > 0 && len(s.runs) > 0 {
		taken = append(taken, run{length: length})
		s.runs[0].length -= length
	}
	return taken
}
