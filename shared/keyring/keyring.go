// Package keyring has the keys of people and machines: the identity file with its secrets, the recipients for whom data
// keys are wrapped, the signers of documents, and whom a reader trusts.
//
// Use [LoadIdentity] first; it opens data keys ([UnwrapKey]), signs ([Identity.Signer], [Sign]) and begins the trust
// ([Identity.Trust], [Open]). The identity file and signed documents keep their format: docs/format.md, "Signed documents".
// Secrets never print themselves.
package keyring

import "errors"

var (
	// ErrNoIdentity says that the identity holds no key that could open a data key.
	ErrNoIdentity = errors.New("no identity opens the data key")
	// ErrWrongIdentity says that none of the identity's keys opens the data key. It is also an [ErrNoIdentity].
	ErrWrongIdentity error = wrongIdentity{}
	// ErrKeyID says that a data key was unwrapped which is not the one that was named: somebody exchanged it.
	ErrKeyID = errors.New("the unwrapped data key is not the one that was named")
	// ErrUnsupported says that a kind of recipient is not supported yet.
	ErrUnsupported = errors.New("not supported yet")
	// ErrUnsigned says that a document is not in the form of a signed document.
	ErrUnsigned = errors.New("not a signed document")
	// ErrSignature says that a document is not what its signer signed, or signed for another place.
	ErrSignature = errors.New("signature does not match")
	// ErrUntrusted says that a document was signed by somebody who is not trusted for its host.
	ErrUntrusted = errors.New("signed by a key that is not trusted here")
	// ErrPermissions says that others than its owner can read or write an identity file.
	ErrPermissions = errors.New("others can read or write the file")
)

type wrongIdentity struct{}

func (wrongIdentity) Error() string        { return "the identity does not open the data key" }
func (wrongIdentity) Is(target error) bool { return target == ErrNoIdentity }
