package steps

import "context"

// Application is who uses what is restored in place.
type Application struct {
	// Stop ends it, Start begins it again, Healthy says whether it is well. Start runs however the restore ends, once Stop was
	// called, also when ctx has ended. Each may be nil.
	Stop, Start, Healthy func(ctx context.Context) error
	// StopFirst stops it before the new one is made: nothing that it commits is missed. Else it is stopped only for the swap.
	StopFirst bool
}

// Exchange lets what is at a place and what was restored beside it change places.
type Exchange interface {
	// Swap puts the new one in its place. The application is stopped.
	Swap(ctx context.Context) error
	// TakeBack has all as it was after a step has failed, up to Swap, or notes in f why it is not.
	TakeBack(f *Failure)
	// PutBack puts the old one back because the application is not well with the new one, or notes in f why not. It calls stop
	// once, which stops the application again.
	PutBack(ctx context.Context, f *Failure, stop func() error)
}

// InPlace restores in place:
//
//  1. The new one is made beside the old one, by build, and production goes on, unless it is to be stopped first; nil: it is made.
//  2. The application is stopped.
//  3. The two change places.
//  4. The application is started, and asked whether it is well.
//
// Where 1 to 3 fail it is taken back, where 4 fails the old one is put back. It returns nil where all went well.
func (c *Course) InPlace(ctx context.Context, path string, app Application, build func(context.Context) error, x Exchange) *Failure {
	stopped := false
	stop := func() error {
		if stopped || app.Stop == nil {
			return nil
		}
		stopped = true // whatever it did: what it has stopped must be started again
		return c.Do(Stop, func() error { return app.Stop(ctx) })
	}
	if err := exchange(ctx, app, stop, build, x); err != nil {
		f := c.Failure(path, err)
		x.TakeBack(f)
		if stopped {
			f.Start = app.start(ctx)
		}
		return f
	}
	err := c.alive(ctx, app)
	if err == nil {
		return nil
	}
	f := c.Failure(path, err)
	ctx = context.WithoutCancel(ctx)
	c.begin(Back)
	x.PutBack(ctx, f, func() error {
		if app.Stop == nil {
			return nil
		}
		return app.Stop(ctx)
	})
	f.Start = app.start(ctx)
	return f
}

func exchange(ctx context.Context, app Application, stop func() error, build func(context.Context) error, x Exchange) error {
	if app.StopFirst {
		if err := stop(); err != nil {
			return err
		}
	}
	if build != nil {
		if err := build(ctx); err != nil {
			return err
		}
	}
	if err := stop(); err != nil {
		return err
	}
	return x.Swap(ctx)
}

// start starts the application, whether the restore was interrupted or not.
func (a Application) start(ctx context.Context) error {
	if a.Start == nil {
		return nil
	}
	return a.Start(context.WithoutCancel(ctx))
}

// alive starts the application and waits until it is well.
func (c *Course) alive(ctx context.Context, app Application) error {
	if app.Start != nil {
		if err := c.Do(Start, func() error { return app.start(ctx) }); err != nil {
			return err
		}
	}
	if app.Healthy != nil {
		return c.Do(Health, func() error { return app.Healthy(ctx) })
	}
	return nil
}
