package s3

import (
	"testing"
	"time"
)

// TestArrivalAtTheTurnOfASecond has a server that lists whole seconds, and makes the id just after the second in which the
// object's time was taken.
func TestArrivalAtTheTurnOfASecond(t *testing.T) {
	id := "01M8FZ1ZDCHBDN4ZS8KXBP50ZQ"
	var ms int64
	for _, c := range id[:10] {
		ms = ms<<5 | int64(indexOf(byte(c)))
	}
	born := time.UnixMilli(ms).UTC()
	listed := born.Truncate(time.Second)
	if got := arrival(&id, &listed); !got.Equal(born) {
		t.Errorf("got %s, want %s", got, born)
	}
	before := listed.Add(-time.Second) // the object's time was taken at the end of the second before
	if got := arrival(&id, &before); !got.Equal(born) {
		t.Errorf("got %s, want %s", got, born)
	}
	long := born.Add(-time.Minute) // no such id
	if got := arrival(&id, &long); !got.Equal(long) {
		t.Errorf("got %s, want %s", got, long)
	}
}

func indexOf(c byte) int {
	for i, d := range []byte("0123456789ABCDEFGHJKMNPQRSTVWXYZ") {
		if c == d {
			return i
		}
	}
	return -1
}
