package rights

import "strings"

// WildcardReason says why a resource with a wildcard is right in a statement that allows. What is not listed here fails
// cdk-nag and test/iam.
func WildcardReason(resource string) (reason string, ok bool) {
	parts := strings.SplitN(resource, ":", 6)
	if len(parts) < 6 || resource == "*" {
		return "", false
	}
	switch service, name := parts[2], parts[5]; service {
	case "s3":
		_, key, found := strings.Cut(name, "/")
		switch {
		case !found || strings.HasPrefix(key, "*") && key != "*":
			return "", false
		case key == "*":
			return "S3 itself copies or delivers whichever objects there are; the bucket is named", true
		case strings.HasPrefix(key, "v1/${aws:PrincipalTag/"):
			return "objects of the caller's own host, whose names are not known before they are written", true
		case strings.HasPrefix(key, "v1/"):
			return "objects of one kind, or all, of any host of this repository; hosts are data, no statement names one", true
		default:
			return "documents of one kind in the state bucket", true
		}
	case "kms":
		return "a key is named by its alias in the condition, since its own name is not known before it is made", name == "key/*"
	case "logs":
		return "the streams of one log group, which Lambda names", strings.HasPrefix(name, "log-group:/aws/lambda/holdfast-") && strings.HasSuffix(name, ":*")
	case "sqs":
		return "queues of hosts, which are data; queues of the control plane have another prefix", name == "holdfast-*"
	}
	return "", false
}

// Wildcards returns the resources with wildcards of statements that allow, without repetition.
func (d Document) Wildcards() []string {
	var out []string
	seen := map[string]bool{}
	for _, s := range d {
		if s.Effect != Allow {
			continue
		}
		for _, r := range s.Resource {
			if strings.Contains(r, "*") && !seen[r] {
				seen[r] = true
				out = append(out, r)
			}
		}
	}
	return out
}
