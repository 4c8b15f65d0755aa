package postgres

import "github.com/btcdecoded/holdfast/hostagent/replicate"

// subject is what may be not well, the gravest first.
type subject int

const (
	aboutServer subject = iota // reaching it, and what it has
	aboutBase
	aboutSlot
	subjects
)

// condition is a state with its reason.
type condition struct {
	state     replicate.State
	why, hint string
}

// note notes what is not well; nil: all is.
func (f *Follower) note(about subject, c *condition) {
	f.mu.Lock()
	f.shown[about] = c
	f.mu.Unlock()
	f.show()
}

// show makes the gravest condition the state.
func (f *Follower) show() {
	f.mu.Lock()
	c := &condition{state: replicate.Following}
	for s := range subjects {
		if f.shown[s] != nil {
			c = f.shown[s]
			break
		}
	}
	f.mu.Unlock()
	f.State(c.state, c.why, c.hint)
}

// mostWarnings bounds how many different ones are told in the life of a process.
const mostWarnings = 100

// warn tells of something that should be set otherwise, once.
func (f *Follower) warn(why, hint string) {
	f.mu.Lock()
	known := f.warned[why] || len(f.warned) > mostWarnings
	f.warned[why] = true
	f.mu.Unlock()
	if !known {
		f.Tell(replicate.Event{Kind: replicate.Warned, Why: why, Hint: hint})
	}
}
