package policy

import (
	"fmt"

	"github.com/goccy/go-yaml"
)

// Marshal writes the policy as YAML, hosts and sources in the order of their names, defaults included. The result
// parses to an equal policy; comments and the order of the original file are not kept.
func (p *Policy) Marshal() ([]byte, error) {
	out, err := yaml.MarshalWithOptions(p, yaml.Indent(2), yaml.IndentSequence(true), yaml.UseSingleQuote(false))
	if err != nil {
		return nil, fmt.Errorf("marshal policy: %w", err)
	}
	return out, nil
}
