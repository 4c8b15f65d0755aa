package inode

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAttributes(t *testing.T) {
	var nothing [4]byte
	grown := 0
	got, err := whole(nothing[:], func(buf []byte) (int, error) {
		// The attribute grows between the call that asks for its size and the next one, a few times.
		size := 1000 * (1 + grown)
		if len(buf) == 0 {
			if grown < 3 {
				grown++
			}
			return size, nil
		}
		if len(buf) < size {
			return 0, unix.ERANGE
		}
		return copy(buf, slices.Repeat([]byte{1}, size)), nil
	})
	if err != nil || len(got) != 4000 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := whole(nil, func([]byte) (int, error) { return 0, unix.EIO }); !errors.Is(err, unix.EIO) {
		t.Error(err)
	}
	if _, err := At(-1, "x").Read(); !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
}
