package main

import (
	"errors"

	"github.com/btcdecoded/holdfast/shared/statestore"
)

// errEnough ends a listing.
var errEnough = errors.New("enough")

func isEnough(err error) bool   { return errors.Is(err, errEnough) }
func isConflict(err error) bool { return errors.Is(err, statestore.ErrConflict) }
