package cli

import (
	"context"

	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/objstore/file"
)

// store opens the object store at an address, with the limits of the global flags.
func (a *app) store(_ context.Context, address string) (objstore.Store, error) {
	return file.Open(address)
}
