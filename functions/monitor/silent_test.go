package main

import (
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/shared/control"
	"github.com/btcdecoded/holdfast/shared/observe"
)

// TestSilenceTooShort is refused with the reason; the least follows from what it is made of.
func TestSilenceTooShort(t *testing.T) {
	for d, good := range map[time.Duration]bool{0: true, time.Minute: false, 40*time.Minute - time.Second: false, 40 * time.Minute: true, defaultSilent: true} {
		err := checkSilent(d)
		if (err == nil) != good || err != nil && !strings.Contains(err.Error(), "at least 40m") {
			t.Errorf("%s: %v", d, err)
		}
	}
	if sum := control.SeenEvery + observe.DefaultJobs + 10*time.Minute; leastSilent < sum {
		t.Errorf("%s is less than %s", leastSilent, sum)
	}
}
