package iam

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Account is all that synthesized templates say about rights.
type Account struct {
	ID        string
	Templates map[string]*Template // by name of the stack
	roles     map[string]*Principal
	managed   map[string]*Policy
	guards    map[string]*Policy // by ARN of the resource
	Policies  []*Policy          // all of them
	Sizes     map[string]int     // bytes of each policy of a resource, as JSON
}

// Template is a template with its references resolved.
type Template struct {
	Stack     string
	Region    string
	Resources map[string]Resource
}

// Resource is one resource of a template.
type Resource struct {
	Type           string
	Properties     map[string]any
	DeletionPolicy string
}

// Load reads the templates of a synthesized app.
func Load(dir, account string) (*Account, error) {
	a := &Account{
		ID:        account,
		Templates: map[string]*Template{}, roles: map[string]*Principal{}, managed: map[string]*Policy{}, guards: map[string]*Policy{},
		Sizes: map[string]int{},
	}
	var manifest struct {
		Artifacts map[string]struct {
			Type        string `json:"type"`
			Environment string `json:"environment"`
			Properties  struct {
				TemplateFile string `json:"templateFile"`
			} `json:"properties"`
		} `json:"artifacts"`
	}
	if err := read(filepath.Join(dir, "manifest.json"), &manifest); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(manifest.Artifacts)) {
		artifact := manifest.Artifacts[name]
		if artifact.Type != "aws:cloudformation:stack" {
			continue
		}
		region := artifact.Environment[strings.LastIndex(artifact.Environment, "/")+1:]
		t, err := readTemplate(filepath.Join(dir, artifact.Properties.TemplateFile), name, account, region)
		if err != nil {
			return nil, err
		}
		a.Templates[name] = t
		if err := a.add(t, account); err != nil {
			return nil, fmt.Errorf("stack %s: %w", name, err)
		}
	}
	return a, nil
}

func read(name string, v any) error {
	text, err := os.ReadFile(name) //nolint:gosec // a test's own directory
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

func readTemplate(name, stack, account, region string) (*Template, error) {
	var raw struct {
		Resources map[string]struct {
			Type           string         `json:"Type"`
			Properties     map[string]any `json:"Properties"`
			DeletionPolicy string         `json:"DeletionPolicy"`
		} `json:"Resources"`
	}
	if err := read(name, &raw); err != nil {
		return nil, err
	}
	t := &Template{Stack: stack, Region: region, Resources: map[string]Resource{}}
	types := map[string]resourceName{}
	for id, r := range raw.Resources {
		types[id] = resourceName{r.Type, r.Properties}
	}
	resolve := resolver{account: account, region: region, types: types}
	for id, r := range raw.Resources {
		p, err := resolve.value(r.Properties)
		if err != nil {
			return nil, fmt.Errorf("template %s, %s: %w", stack, id, err)
		}
		properties, _ := p.(map[string]any)
		t.Resources[id] = Resource{Type: r.Type, Properties: properties, DeletionPolicy: r.DeletionPolicy}
	}
	return t, nil
}

type resourceName struct {
	kind       string
	properties map[string]any
}

// resolver replaces references by what they will be. Names are fixed, so that ARNs are known beforehand.
type resolver struct {
	account, region string
	types           map[string]resourceName
}

func (r resolver) value(v any) (any, error) {
	switch v := v.(type) {
	case []any:
		out := make([]any, 0, len(v))
		for _, e := range v {
			x, err := r.value(e)
			if err != nil {
				return nil, err
			}
			out = append(out, x)
		}
		return out, nil
	case map[string]any:
		if len(v) == 1 {
			for k, arg := range v {
				if k == "Ref" || strings.HasPrefix(k, "Fn::") {
					return r.intrinsic(k, arg)
				}
			}
		}
		out := map[string]any{}
		for k, e := range v {
			x, err := r.value(e)
			if err != nil {
				return nil, err
			}
			out[k] = x
		}
		return out, nil
	}
	return v, nil
}

func (r resolver) intrinsic(name string, arg any) (any, error) {
	switch name {
	case "Ref":
		id, _ := arg.(string)
		switch id {
		case "AWS::AccountId":
			return r.account, nil
		case "AWS::Region":
			return r.region, nil
		case "AWS::Partition":
			return "aws", nil
		}
		return r.reference(id, "Ref")
	case "Fn::GetAtt":
		parts := list(arg)
		return r.reference(parts[0], parts[1])
	case "Fn::Join":
		args, _ := arg.([]any)
		items, err := r.value(args[1])
		if err != nil {
			return nil, err
		}
		return strings.Join(list(items), fmt.Sprint(args[0])), nil
	}
	return nil, fmt.Errorf("function %s is not known", name)
}

func (r resolver) reference(id, attribute string) (string, error) {
	n, ok := r.types[id]
	if !ok {
		return "", fmt.Errorf("reference to %s: not in the template", id)
	}
	text := func(key string) string { s, _ := n.properties[key].(string); return s }
	arn := func(service, name string) string {
		return fmt.Sprintf("arn:aws:%s:%s:%s:%s", service, r.region, r.account, name)
	}
	switch n.kind + "." + attribute {
	case "AWS::S3::Bucket.Ref":
		return text("BucketName"), nil
	case "AWS::SQS::Queue.Arn":
		return arn("sqs", text("QueueName")), nil
	case "AWS::SQS::Queue.Ref":
		return "https://sqs." + r.region + ".amazonaws.com/" + r.account + "/" + text("QueueName"), nil
	case "AWS::SNS::Topic.Ref":
		return arn("sns", text("TopicName")), nil
	case "AWS::Lambda::Function.Ref":
		return text("FunctionName"), nil
	case "AWS::Lambda::Function.Arn":
		return arn("lambda", "function:"+text("FunctionName")), nil
	case "AWS::IAM::Role.Arn":
		return "arn:aws:iam::" + r.account + ":role" + text("Path") + text("RoleName"), nil
	case "AWS::KMS::Key.Arn":
		return arn("kms", "key/"+r.region), nil
	}
	return "", fmt.Errorf("reference to %s of a %s is not known", attribute, n.kind)
}

// add takes the policies out of a template.
func (a *Account) add(t *Template, account string) error {
	arn := func(service, name string) string {
		return fmt.Sprintf("arn:aws:%s:%s:%s:%s", service, t.Region, account, name)
	}
	for _, id := range slices.Sorted(maps.Keys(t.Resources)) {
		r := t.Resources[id]
		text := func(key string) string { s, _ := r.Properties[key].(string); return s }
		var err error
		switch r.Type {
		case "AWS::IAM::Role":
			err = a.role(r, account)
		case "AWS::IAM::ManagedPolicy":
			a.managed[text("ManagedPolicyName")], err = a.parse(text("ManagedPolicyName"), r.Properties["PolicyDocument"])
		case "AWS::S3::BucketPolicy":
			err = a.guardAs("arn:aws:s3:::"+text("Bucket"), r.Properties["PolicyDocument"])
		case "AWS::SQS::QueuePolicy":
			for _, url := range list(r.Properties["Queues"]) {
				err = a.guardAs(arn("sqs", url[strings.LastIndex(url, "/")+1:]), r.Properties["PolicyDocument"])
			}
		case "AWS::SNS::TopicPolicy":
			for _, topic := range list(r.Properties["Topics"]) {
				err = a.guardAs(topic, r.Properties["PolicyDocument"])
			}
		case "AWS::KMS::Key":
			err = a.guardAs(arn("kms", "key/"+t.Region), r.Properties["KeyPolicy"])
		}
		if err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
	}
	return nil
}

func (a *Account) parse(name string, document any) (*Policy, error) {
	p, err := Parse(name, document)
	if err == nil {
		a.Policies = append(a.Policies, p)
	}
	return p, err
}

func (a *Account) guardAs(arn string, document any) error {
	p, err := a.parse(arn, document)
	if err != nil {
		return err
	}
	text, err := json.Marshal(document)
	a.guards[arn], a.Sizes[arn] = p, len(text)
	return err
}

func (a *Account) role(r Resource, account string) error {
	name, _ := r.Properties["RoleName"].(string)
	path, _ := r.Properties["Path"].(string)
	arn := "arn:aws:iam::" + account + ":role" + path + name
	p := &Principal{ARN: arn}
	policies, _ := r.Properties["Policies"].([]any)
	for _, inline := range policies {
		m, _ := inline.(map[string]any)
		policy, err := a.parse(name+"/"+fmt.Sprint(m["PolicyName"]), m["PolicyDocument"])
		if err != nil {
			return err
		}
		p.Policies = append(p.Policies, policy)
	}
	if a.roles[name] != nil {
		return fmt.Errorf("role %s is there twice: names of roles have neither path nor region", name)
	}
	a.roles[name] = p
	// Who may become the role is a policy of the role as a resource, which has no Resource element.
	trust, _ := r.Properties["AssumeRolePolicyDocument"].(map[string]any)
	statements, _ := trust["Statement"].([]any)
	for _, s := range statements {
		s.(map[string]any)["Resource"] = arn
	}
	return a.guardAs(arn, trust)
}

// Role returns a role by name, with tags of its session.
func (a *Account) Role(name string, tags map[string]string) (Principal, error) {
	p, ok := a.roles[name]
	if !ok {
		return Principal{}, fmt.Errorf("role %s is not in the templates", name)
	}
	return Principal{ARN: p.ARN, Tags: tags, Policies: p.Policies}, nil
}

// Managed returns a managed policy by name.
func (a *Account) Managed(name string) (*Policy, error) {
	if p, ok := a.managed[name]; ok {
		return p, nil
	}
	return nil, fmt.Errorf("managed policy %s is not in the templates", name)
}

// guard is the policy of the resource that an ARN is in: an object's is its bucket's.
func (a *Account) guard(arn string) *Policy {
	if bucket, _, found := strings.Cut(arn, "/"); found && strings.HasPrefix(arn, "arn:aws:s3:::") {
		return a.guards[bucket]
	}
	return a.guards[arn]
}
