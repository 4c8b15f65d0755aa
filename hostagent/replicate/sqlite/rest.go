package sqlite

import "time"

const (
	// restTick is the time between two looks at an idle database of which it is heard when something is written.
	restTick = time.Second
	// mostUnheard is how many looks in a row may find what was not heard of before nothing is listened to any more.
	mostUnheard = 3
)

// ears hear of writes to a database; a *tail.Tail has them.
type ears interface {
	// Listen begins or ends to listen, and reports whether writes from now on are heard.
	Listen(on bool) bool
	// Heard reports whether something was heard that ended no wait yet.
	Heard() bool
}

// rest is the pace of looks at a database that is mostly idle: after a while in which nothing is found it is listened to
// instead, which costs nothing.
type rest struct {
	pace
	ears    ears
	on      bool // writes are listened to
	long    bool // the last wait was a long one
	unheard int
}

// next is how long to wait after a look that found so many commits; heard says that the wait before it had ended early.
func (r *rest) next(commits int, heard bool) time.Duration {
	switch {
	case commits > 0 && heard:
		r.unheard = 0
	case commits > 0 && r.long && !r.ears.Heard():
		r.unheard++ // a file system that is written to behind the kernel's back
	}
	r.long = false
	if heard {
		r.tick = 0 // what was written may not be committed yet
	}
	d := r.pace.next(commits)
	switch {
	case r.tick < r.longest() || r.unheard >= mostUnheard:
		if r.on {
			r.on = r.ears.Listen(false) // under load it would be heard of far too often
		}
		return d
	case r.on:
		r.long = true
		return restTick
	}
	if r.on = r.ears.Listen(true); r.on {
		return 0 // what was written before needs another look
	}
	return d
}
