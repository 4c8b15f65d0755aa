package cli

import (
	"errors"
	"fmt"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/layout"
	"github.com/btcdecoded/holdfast/shared/snapshot"
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

// maySign checks that the repository counts the identity's signature for parts of a host's sources, such as
// "snapshots"; for the host "*", that for the repository as a whole. An identity always trusts itself, so that without
// this check it would write what nobody else believes: a snapshot whose number is then taken, or a receipt that others
// report as forged.
func maySign(repo *repository.Repository, host string, parts ...string) error {
	signer, ok := repo.Identity().Signer()
	if !ok {
		return repository.ErrNoSigner
	}
	keys := []string{layout.AccessPrefix + "x"}
	if host != "*" {
		keys = nil
		for _, part := range parts {
			keys = append(keys, layout.SourcePrefix(snapshot.Source{Host: host, Name: "x"})+part+"/x")
		}
	}
	for _, key := range keys {
		if !repo.MaySign(key) {
			return hinted{
				fmt.Errorf("%w %s", errNotSigner, host),
				fmt.Sprintf("where the repository was made: `holdfast key add --signer %s --for-host %s`", signer.Public(), shellWord(host)),
			}
		}
	}
	return nil
}
