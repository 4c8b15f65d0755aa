// Command coordinate is the function that decides each minute which backups are due, puts jobs into the hosts' queues
// and follows them by what agents report.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"

	"github.com/btcdecoded/holdfast/functions/invoke"
)

func main() {
	err := invoke.Start("coordinate", func() (invoke.Handler, error) {
		return func(context.Context, json.RawMessage) (any, error) { return nil, errors.New("not there yet") }, nil
	})
	if err != nil {
		os.Exit(1)
	}
}
