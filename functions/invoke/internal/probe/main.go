// Command probe is a function that does what its payload says, for the tests of package invoke.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"time"

	"github.com/btcdecoded/holdfast/functions/environment"
	"github.com/btcdecoded/holdfast/functions/invoke"
)

func main() {
	if err := invoke.Start("probe", build); err != nil {
		os.Exit(1) //nolint:forbidigo // the main of a function
	}
}

func build() (invoke.Handler, error) {
	var env environment.Cloud
	if err := environment.Load(os.Getenv, &env); err != nil {
		return nil, err
	}
	cloud, err := invoke.Open(env)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, payload json.RawMessage) (any, error) { return probe(ctx, cloud, payload) }, nil
}

// order is the payload.
type order struct {
	Do string `json:"do"`
}

func probe(ctx context.Context, cloud *invoke.Cloud, payload json.RawMessage) (any, error) {
	if invoke.IsMessages(payload) {
		return invoke.Messages(ctx, payload, func(ctx context.Context, m invoke.Message) error {
			_, err := do(invoke.WithJob(ctx, "job-of-"+m.ID), cloud, m.Body)
			return err
		})
	}
	return do(ctx, cloud, payload)
}

func do(ctx context.Context, cloud *invoke.Cloud, payload []byte) (any, error) {
	var o order
	if err := json.Unmarshal(payload, &o); err != nil {
		return nil, err
	}
	switch o.Do {
	case "panic":
		panic("on purpose")
	case "fail":
		return nil, errors.New("on purpose")
	case "wait": // until the time is up
		<-ctx.Done()
		end, _ := ctx.Deadline()
		return time.Until(end) <= 0, nil
	case "policy":
		p, tag, err := cloud.Policy(ctx)
		if err != nil {
			return nil, err
		}
		return map[string]any{"hosts": len(p.Hosts), "tag": tag}, nil
	case "repository":
		p, _, err := cloud.Policy(ctx)
		if err != nil {
			return nil, err
		}
		repo, err := cloud.Repository(ctx, p)
		if err != nil {
			return nil, err
		}
		_, signs := repo.Identity().Signer()
		return map[string]any{"id": repo.ID().String(), "signs": signs}, nil
	}
	invoke.Log(ctx).Info("done", "what", o.Do)
	return o.Do, nil
}
