package observe

import "github.com/btcdecoded/holdfast/shared/objstore/address"

// Dependence says why a copy does not count as one: whoever can delete the primary can, as far as the addresses tell,
// delete the copy as well. Empty if it counts.
func Dependence(primary, copied string) string {
	p, err := address.Parse(primary)
	if err != nil {
		return "beside a primary whose address can't be read"
	}
	c, err := address.Parse(copied)
	switch {
	case err != nil:
		return "an address that can't be read"
	case p.Scheme != c.Scheme || p.S3.Profile != c.S3.Profile || p.S3.Endpoint != c.S3.Endpoint || p.GS.Endpoint != c.GS.Endpoint:
		return ""
	case c.Scheme == "file":
		return "a directory of this host, as the primary is"
	}
	return "reached with the same credentials as the primary"
}
