package cli

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/btcdecoded/holdfast/hostagent/replicate"
	"github.com/btcdecoded/holdfast/hostagent/restorer"
	"github.com/btcdecoded/holdfast/hostagent/restorer/sqlite"
	"github.com/btcdecoded/holdfast/shared/keyring"
	"github.com/btcdecoded/holdfast/shared/objstore"
	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/prune"
	"github.com/btcdecoded/holdfast/shared/repository/repair"
	"github.com/btcdecoded/holdfast/shared/retention"
	"github.com/btcdecoded/holdfast/shared/snapshot"
)

// exitRow maps errors that row.is to a code and a hint.
type exitRow struct {
	is   error
	code int
	hint string
}

// exitTable is searched from the top.
func exitTable() []exitRow {
	const damaged = "`holdfast verify` names everything that is wrong; `holdfast repair --from COPY` puts back what a copy has"
	return []exitRow{
		{errAccessGone, exitDamaged, "`holdfast repair --from COPY` puts back what a copy has"},
		{errMissing, exitDamaged, damaged},
		{repository.ErrCopyBegun, exitNoRepository, "go on with it by `holdfast copy --to`; or remove v1/access/copy there, and what else is below v1/, and make a repository with `holdfast init`"},
		{repository.ErrRemains, exitDamaged, "`holdfast repair --from COPY` puts back what is missing from a copy; for a new repository name an empty place"},
		{repository.ErrNoRepository, exitNoRepository, "look whether the address is right and the disk mounted; `holdfast init` makes a new one"},
		{repository.ErrUnfinished, exitNoRepository, "`holdfast init` with the identity that began it finishes it"},
		{replicate.ErrFollowed, exitLocked, "the agent follows the sources with continuous by itself; `holdfast agent status` shows them"},
		{replicate.ErrSuperseded, exitSuperseded, "find the other one, such as a clone of this machine; then `holdfast replicate --new-stream` begins anew, with a snapshot"},
		{repository.ErrLocked, exitLocked, "wait for the other run to end; a run that was killed holds no lock"},
		{errNoIdentityFile, exitIdentity, "name the file with --identity or HOLDFAST_IDENTITY; `holdfast init` makes one for a new repository"},
		{keyring.ErrNoIdentity, exitIdentity, "name another file with --identity; `holdfast key list` shows who can open the snapshots"},
		{keyring.ErrKeyID, exitIdentity, ""},
		{keyring.ErrPermissions, exitIdentity, ""},
		{keyring.ErrUntrusted, exitIdentity, "this identity trusts other signers than the repository's: use the identity of this repository, or add a line \"trust KEY *\" with the signer's key if you know it"},
		{errBadIdentity, exitIdentity, "name another file with --identity, or put your copy of it back"},
		{repository.ErrNoSigner, exitIdentity, "reading needs no signer, writing does: use the identity that init made"},
		{errNotSigner, exitIdentity, ""},
		{keyring.ErrSignature, exitDamaged, damaged},
		{keyring.ErrUnsigned, exitDamaged, damaged},
		{snapshot.ErrFormat, exitDamaged, damaged},
		{repository.ErrAccess, exitDamaged, damaged},
		{repository.ErrRepositoryExists, exitError, "use it as it is, or name another place"},
		{repository.ErrUnsupported, exitError, "update holdfast"},
		{repository.ErrDraft, exitError, "make a new repository with `holdfast init`; only the program that made the old one reads it"},
		{repository.ErrNoSnapshot, exitError, "`holdfast snapshots` lists them"},
		{repository.ErrNoPath, exitError, "`holdfast ls` and `holdfast find` show what is in a snapshot"},
		{repository.ErrConflict, exitError, "run the backup again"},
		{repository.ErrCondemned, exitError, "run the backup again: it begins with what stays"},
		{repository.ErrTooOld, exitError, "nothing is committed while one file or database is stored: one that takes more than 5 days needs a faster way to the repository (--limit-upload), or a first backup to a disk and `holdfast copy`"},
		{retention.ErrTooMany, exitConfirm, "look at what is listed, then repeat it with --force"},
		{prune.ErrBroken, exitDamaged, damaged},
		{repair.ErrDiverged, exitDamaged, ""},
		{restorer.ErrBusy, exitLocked, "wait for the other restore to end"},
		{sqlite.ErrBusy, exitLocked, "wait for the other restore to end"},
		{sqlite.ErrFull, exitError, "make room at the target"},
		{errProof, exitDamaged, ""},
		{restorer.ErrSelection, exitError, "`holdfast ls` shows what is in the snapshot"},
		{restorer.ErrFull, exitError, "make room at the target; the same command goes on from where it stopped"},
		{syscall.ENOTDIR, exitError, "something there is no directory: name one that is there, or a place where one can be made"},
		{syscall.EROFS, exitError, "the file system there is mounted read-only"},
		{fs.ErrPermission, exitError, fmt.Sprintf("uid %d may not do this there: run it as root or as the owner", os.Geteuid())},
		{objstore.ErrDenied, exitError, "the credentials do not allow this"},
		{objstore.ErrFull, exitError, "make room at the repository, or prune"},
		{syscall.ENOSPC, exitError, "make room on that file system; --state names another place for locks, caches and journals"},
	}
}
