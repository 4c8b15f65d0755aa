package cli

import (
	"os"
	"path/filepath"
	"time"

	"github.com/btcdecoded/holdfast/shared/repository"
	"github.com/btcdecoded/holdfast/shared/repository/verify"
)

// resumeFile is where the agent notes, beside the other state of a source, how far a verification of its content has come.
const resumeFile = "verify.resume"

// longestResume is how long after its begin a verification is gone on with. A proof is as old as the oldest that it rests on.
const longestResume = 14 * 24 * time.Hour

// resume lets a verification that the agent makes go on where the last one gave way: between two backups there may never be
// time for all of a large source. What a person asks for reads everything. The caller calls done when the run is over.
func (a *app) resume(repo *repository.Repository, o *verify.Options) (done func(ended bool)) {
	if a.resumes == nil || o.Level != verify.Content || o.Sample.N > 0 || len(o.Sources) != 1 {
		return func(bool) {}
	}
	path := filepath.Join(a.followDir(repo.ID(), o.Sources[0]), resumeFile)
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		o.Resume, err = verify.OpenResume(path, a.now(), longestResume)
	}
	if err != nil {
		a.warn("%v: it begins anew each time", err)
		return func(bool) {}
	}
	a.resumes(o.Resume)
	return func(ended bool) {
		if err := o.Resume.Close(ended); err != nil {
			a.warn("%v", err)
		}
	}
}
