package cli

import (
	"errors"
	"fmt"
	"testing"

	"github.com/btcdecoded/holdfast/hostagent/restorer/postgres"
	"github.com/btcdecoded/holdfast/shared/recovery"
	"github.com/btcdecoded/holdfast/shared/repository"
)

// TestVerdicts has errors of a drill that are of the backup, and others that are of the host it was tried on.
func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{fmt.Errorf("recovery: %w: the server ended", postgres.ErrShort), true},
		{&repository.DamageError{Key: "k", Err: errors.New("torn")}, true},
		{&postgres.HoleError{}, true},
		{&lostError{lost: recovery.LostRecords{First: 3, Last: 3}}, true},
		{fmt.Errorf("recovery: %w", errors.Join(postgres.ErrShort, postgres.ErrPreload)), false},
		{fmt.Errorf("recovery: %w: the server ended", postgres.ErrHost), false},
		{fmt.Errorf("recovery: %w: the server ended", postgres.ErrLibrary), false},
		{fmt.Errorf("prepare: %w", postgres.ErrRoom), false},
		{&postgres.SpacesError{Path: "/fast"}, false},
		{errors.New("connection refused"), false},
	} {
		if got := rottenCluster(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}
