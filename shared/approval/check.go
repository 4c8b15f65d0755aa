package approval

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/btcdecoded/holdfast/events"
	"github.com/btcdecoded/holdfast/shared/policy"
)

// maxSignatures bounds how many signatures are looked at.
const maxSignatures = 16

// Check decides whether a restore that came over the queue may run on the host: by the host's own policy, whatever
// another one says. id is that of the job. Every error is an [*events.RefusedError].
//
// That the id was not used before is for the caller's journal to say; ids must be remembered for [MaxLife] and longer.
func Check(p *policy.Policy, host, id string, order *events.RestoreOrder, now time.Time) (*Request, error) {
	if order == nil {
		return nil, refused(events.Malformed, "no restore order")
	}
	r, err := Decode(order.Request)
	if err != nil {
		return nil, refused(events.Malformed, "%v", err)
	}
	// Who signed comes first: what a stranger wrote is not answered.
	signers, err := SignedBy(p, order)
	if err != nil {
		return nil, refused(events.Forged, "%v", err)
	}
	switch {
	case len(signers) < Approvals:
		return nil, refused(events.Forged, "signed by %d of the %d different approvers that it takes", len(signers), Approvals)
	case r.ID != id:
		return nil, refused(events.Forged, "the job has another id than the request that was signed")
	case r.Host != host:
		return nil, refused(events.Foreign, "the request is for host %s", r.Host)
	case now.After(r.Expires):
		return nil, refused(events.Stale, "expired %s", r.Expires.UTC().Format(time.RFC3339))
	case now.Before(r.Created.Add(-Skew)):
		return nil, refused(events.NotAllowed, "created in the future")
	}
	if err := allowed(p, host, r); err != nil {
		return nil, err
	}
	return r, nil
}

// allowed checks what the policy of the host lets restores do.
func allowed(p *policy.Policy, host string, r *Request) error {
	h := p.Hosts[host]
	switch {
	case h == nil:
		return refused(events.NotAllowed, "the policy does not have host %s", host)
	case r.InPlace && !h.Restore.InPlace:
		return refused(events.NotAllowed, "the policy of the host does not allow restores in place over the queue")
	case r.InPlace && r.From().Host != host:
		return refused(events.NotAllowed, "what another host had is not restored in place")
	case r.InPlace:
		return nil
	}
	for _, root := range h.Restore.Targets {
		if below(root, r.Target) {
			return nil
		}
	}
	return refused(events.NotAllowed, "the target does not lie below one that the policy of the host names")
}

// below reports whether target lies below root and is not root itself, which other restores share.
func below(root, target string) bool {
	return strings.HasPrefix(target, path.Clean(root)+"/")
}

// SignedBy returns the names of the approvers whose signatures are over the request, each once, in order. One signature
// that is wrong spoils all: somebody tampers, or the policy has another key.
func SignedBy(p *policy.Policy, order *events.RestoreOrder) ([]string, error) {
	if len(order.Signatures) > maxSignatures {
		return nil, fmt.Errorf("more than %d signatures", maxSignatures)
	}
	var names []string
	seen := map[string]bool{}
	for i, s := range order.Signatures {
		a, ok := approver(p, s.Signer)
		if !ok {
			return nil, fmt.Errorf("signature %d: its signer is none of the policy's approvers", i+1)
		}
		key, err := a.Public()
		if err != nil {
			return nil, fmt.Errorf("approver %s: %w", a.Name, err)
		}
		if err := Verify(order.Request, s, key); err != nil {
			return nil, fmt.Errorf("signature of %s: %w", a.Name, err)
		}
		if !seen[a.Name] {
			names = append(names, a.Name)
		}
		seen[a.Name] = true
	}
	return names, nil
}

func approver(p *policy.Policy, name string) (policy.Approver, bool) {
	if p == nil {
		return policy.Approver{}, false
	}
	for _, a := range p.Approvers {
		if a.Name == name {
			return a, true
		}
	}
	return policy.Approver{}, false
}

func refused(code events.RefuseCode, format string, args ...any) error {
	return &events.RefusedError{Code: code, Reason: fmt.Sprintf(format, args...)}
}

// Code returns the code with which an error of [Check] refuses.
func Code(err error) events.RefuseCode {
	var r *events.RefusedError
	if errors.As(err, &r) {
		return r.Code
	}
	return events.Malformed
}
