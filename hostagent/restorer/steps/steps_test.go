package steps_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/btcdecoded/holdfast/hostagent/restorer/steps"
)

// scene notes what a restore in place has done, and lets some of it fail.
type scene struct {
	course steps.Course
	done   []string
	fail   map[string]error // by what is done, taken out where it has failed once
	stuck  error            // why nothing can be put back
}

func (s *scene) do(what string) error {
	s.done = append(s.done, what)
	err := s.fail[what]
	delete(s.fail, what)
	return err
}

func (s *scene) Swap(context.Context) error {
	return s.course.Do("swap", func() error { return s.do("swap") })
}

func (s *scene) TakeBack(f *steps.Failure) {
	_ = s.do("take back")
	f.Back = s.stuck
}

func (s *scene) PutBack(ctx context.Context, f *steps.Failure, stop func() error) {
	stopped := stop()
	_ = s.do("put back")
	if ctx.Err() != nil {
		f.Back = ctx.Err()
	} else if s.stuck != nil {
		f.Back = errors.Join(stopped, s.stuck)
	}
}

func (s *scene) restore(ctx context.Context, first bool) *steps.Failure {
	hook := func(what string) func(context.Context) error {
		return func(ctx context.Context) error {
			if what == "start" && ctx.Err() != nil {
				return ctx.Err()
			}
			return s.do(what)
		}
	}
	app := steps.Application{Stop: hook("stop"), Start: hook("start"), Healthy: hook("health"), StopFirst: first}
	return s.course.InPlace(ctx, "/place", app, func(ctx context.Context) error {
		return errors.Join(s.do("build"), ctx.Err())
	}, s)
}

// TestInPlace: whatever fails, an application that was stopped is started again, after all is as it was.
func TestInPlace(t *testing.T) {
	bad := errors.New("bad")
	for _, c := range []struct {
		first bool
		fail  string
		step  string // that the failure names; empty: all goes well
		done  string
	}{
		{false, "", "", "build, stop, swap, start, health"},
		{true, "", "", "stop, build, swap, start, health"},
		{false, "build", "", "build, take back"},
		{true, "build", steps.Stop, "stop, build, take back, start"}, // a build names its own steps
		{true, "stop", steps.Stop, "stop, take back, start"},
		{false, "stop", steps.Stop, "build, stop, take back, start"},
		{false, "swap", "swap", "build, stop, swap, take back, start"},
		{false, "start", steps.Start, "build, stop, swap, start, stop, put back, start"},
		{false, "health", steps.Health, "build, stop, swap, start, health, stop, put back, start"},
	} {
		s := &scene{fail: map[string]error{c.fail: bad}}
		f := s.restore(t.Context(), c.first)
		if got := strings.Join(s.done, ", "); got != c.done {
			t.Errorf("%s: %s, want %s", c.fail, got, c.done)
		}
		switch {
		case c.fail == "" && f != nil, c.fail != "" && f == nil:
			t.Errorf("%s: %v", c.fail, f)
		case f != nil && (f.Step != c.step || f.Path != "/place" || !errors.Is(f, bad) || f.Back != nil || f.Start != nil):
			t.Errorf("%s: %+v", c.fail, f)
		}
	}
}

// TestInterrupted: the way back is taken although the context has ended.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &scene{}
	s.course.Fault = func(step string) error {
		if step == steps.Health {
			cancel()
			return ctx.Err()
		}
		return nil
	}
	f := s.restore(ctx, false)
	if f == nil || !errors.Is(f, context.Canceled) || f.Back != nil || f.Start != nil {
		t.Errorf("%v", f)
	}
	if got := strings.Join(s.done, ", "); got != "build, stop, swap, start, stop, put back, start" {
		t.Error(got)
	}
}

// TestNothingToStop has no hooks.
func TestNothingToStop(t *testing.T) {
	s := &scene{fail: map[string]error{"swap": errors.New("bad")}}
	f := s.course.InPlace(t.Context(), "/place", steps.Application{}, nil, s)
	if f == nil || fmt.Sprint(s.done) != "[swap take back]" {
		t.Errorf("%v, %v", f, s.done)
	}
}

func TestCourse(t *testing.T) {
	var told []string
	c := steps.Course{Began: func(step string) { told = append(told, step) }, Called: map[string]string{steps.Stop: "stop"}}
	bad := errors.New("bad")
	if err := c.Do("build", func() error { return nil }); err != nil {
		t.Error(err)
	}
	if err := c.Do(steps.Stop, func() error { return bad }); !errors.Is(err, bad) {
		t.Error(err)
	}
	if fmt.Sprint(told) != "[build stop]" || len(c.Done) != 2 || c.Done[1].Name != "stop" || c.At != "stop" {
		t.Errorf("%q, %+v, %s", told, c.Done, c.At)
	}
}

func TestFailure(t *testing.T) {
	one, two, three := errors.New("one"), errors.New("two"), errors.New("three")
	for want, f := range map[string]*steps.Failure{
		"restore /p: build: one; everything is as it was":                                                          {Step: "build", Path: "/p", Err: one, Good: time.Now()},
		"restore /p: swap: one; the server said: no; everything is as it was, and what had been restored is in /f": {Step: "swap", Path: "/p", Err: one, Words: "no", Failed: "/f"},
		"restore /p: swap: one; what was there before could NOT be put back: two; it is in /s; the application could NOT be started again: three": {
			Step: "swap", Path: "/p", Err: one, Back: two, Start: three, Safety: "/s",
		},
	} {
		if got := f.Error(); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
		for _, err := range []error{f.Err, f.Back, f.Start} {
			if err != nil && !errors.Is(f, err) {
				t.Errorf("%v does not lead to %v", f, err)
			}
		}
	}
}
