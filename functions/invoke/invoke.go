// Package invoke is what every function of the control plane does around its own work: logs as JSON with the id of the
// request, a deadline that leaves time to write down how far it came, panics that become errors, messages of a queue
// that fail one by one, and the way to state bucket, policy and repository.
//
// Use [Start] in main, [Messages] for functions behind a queue, [Open] for what the environment names. Nothing here
// decides anything.
package invoke

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

// Handler does the work of one invocation. What it returns is encoded as JSON.
type Handler func(ctx context.Context, payload json.RawMessage) (any, error)

// Start serves invocations until Lambda ends the process. build is called once, before the first of them: what it costs
// is the function's cold start, so it only reads the environment and makes clients. Where it fails, Start logs why and
// returns the error, after which the process must end with a code that is not 0: Lambda reports that.
func Start(name string, build func() (Handler, error)) error {
	log := NewLog(os.Stdout, os.Getenv("HOLDFAST_LOG_LEVEL")).With("function", name)
	h, err := build()
	if err != nil {
		log.Error("start", "error", err.Error())
		return err
	}
	lambda.Start(Wrap(log, func(ctx context.Context, payload json.RawMessage) (any, error) {
		return h(context.WithValue(ctx, nameKey{}, name), payload)
	}))
	return nil
}

// NewLog returns a logger that writes JSON lines; level is debug, info, warn, error or empty (info).
func NewLog(w io.Writer, level string) *slog.Logger {
	var l slog.Level
	if level == "" || l.UnmarshalText([]byte(level)) != nil {
		l = slog.LevelInfo
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l}))
}

// Wrap puts around h what every invocation has.
func Wrap(log *slog.Logger, h Handler) func(context.Context, json.RawMessage) (any, error) {
	return func(ctx context.Context, payload json.RawMessage) (result any, err error) {
		if lc, ok := lambdacontext.FromContext(ctx); ok {
			log := log.With("request", lc.AwsRequestID)
			ctx = WithLog(ctx, log)
		} else {
			ctx = WithLog(ctx, log)
		}
		ctx, cancel := early(ctx)
		defer cancel()
		started := time.Now()
		defer func() {
			if p := recover(); p != nil {
				// A function is safe to repeat: what a panic left half done is done again with the next invocation.
				Log(ctx).Error("panic", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				result, err = nil, fmt.Errorf("panic: %v", p)
			}
			if err != nil {
				Log(ctx).Error("invocation ended with an error", "error", err.Error(), "milliseconds", time.Since(started).Milliseconds())
			}
		}()
		return h(ctx, payload)
	}
}

// Margin is how long before the deadline a function stops, so that it can still write down how far it came: a minute,
// or a tenth of the time where that is less.
func Margin(remaining time.Duration) time.Duration { return min(time.Minute, remaining/10) }

func early(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, end.Add(-Margin(time.Until(end))))
}

type logKey struct{}

// WithLog returns a context whose logger is log.
func WithLog(ctx context.Context, log *slog.Logger) context.Context {
	return context.WithValue(ctx, logKey{}, log)
}

// WithJob returns a context whose log lines name a job.
func WithJob(ctx context.Context, job string) context.Context {
	return WithLog(ctx, Log(ctx).With("job", job))
}

// Log returns the context's logger; one that writes nothing where it has none.
func Log(ctx context.Context) *slog.Logger {
	if log, ok := ctx.Value(logKey{}).(*slog.Logger); ok {
		return log
	}
	return slog.New(slog.DiscardHandler)
}
