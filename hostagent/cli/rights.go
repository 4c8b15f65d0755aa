package cli

import (
	"errors"
	"fmt"

	"github.com/btcdecoded/holdfast/shared/repository"
)

// errNotSigner says that what this identity signs does not count for a host.
var errNotSigner = errors.New("the repository does not know this identity as a signer for the host")

// shellWord quotes what a shell would take for a pattern.
func shellWord(host string) string {
	if host == "*" {
		return "'*'"
	}
	return host
}

// maySign checks that the repository counts the identity's signature for a host. An identity always trusts itself, so
// that without this check it would write what nobody else believes: a snapshot whose number is then taken, or a receipt
// that others report as forged.
func maySign(repo *repository.Repository, host string) error {
	signer, ok := repo.Identity().Signer()
	if !ok {
		return repository.ErrNoSigner
	}
	key := signer.Public().String()
	for _, s := range repo.Access().Signers {
		if s.Key == key && (s.Host == host || s.Host == "*") {
			return nil
		}
	}
	return hinted{
		fmt.Errorf("%w %s", errNotSigner, host),
		fmt.Sprintf("where the repository was made: `holdfast key add --signer %s --for-host %s`", key, shellWord(host)),
	}
}
