package config

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"buf.build/go/protovalidate"
	"buf.build/go/protoyaml"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

// decode turns the prepared tree into the schema's message and checks the rules
// that the schema states.
func decode(r *report) *configv1.Config {
	cfg := &configv1.Config{}
	// protoyaml reads text, not trees. It is given an empty mapping with as many
	// lines as the file, and the prepared tree takes the mapping's place.
	stand := []byte("{}" + strings.Repeat("\n", r.doc.breaks+1))
	err := protoyaml.UnmarshalOptions{CustomUnmarshaler: &graft{root: r.doc.root}}.Unmarshal(stand, cfg)
	for _, e := range split(err) {
		r.decodeFault(e)
	}
	r.validate(cfg)
	return cfg
}

// graft puts the prepared tree in the place of the first node that it sees.
type graft struct{ root *yaml.Node }

// Unmarshal leaves the decoding to protoyaml.
func (g *graft) Unmarshal(n *yaml.Node, _ proto.Message) (bool, error) {
	if g.root != nil {
		*n, g.root = *g.root, nil
	}
	return false, nil
}

func split(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

var (
	decodePlace = regexp.MustCompile(`^:(\d+):(\d+) `)
	messageName = regexp.MustCompile(`expected fields for [\w.]+`)
)

// decodeFault notes one of protoyaml's errors, which begin with their place.
func (r *report) decodeFault(err error) {
	cause := err
	if inner := errors.Unwrap(err); inner != nil {
		cause = inner
	}
	message := plainly(cause.Error())
	m := decodePlace.FindStringSubmatch(err.Error())
	if m == nil {
		r.faultAt(1, 1, "", message)
		return
	}
	line, _ := strconv.Atoi(m[1])
	col, _ := strconv.Atoi(m[2])
	r.faultAt(line, col, r.doc.paths[spot{line, col}], message)
}

// plainly says what protoyaml says in terms of the file.
func plainly(message string) string {
	switch {
	case strings.HasPrefix(message, "invalid float"):
		return "expected a number"
	case strings.HasPrefix(message, "expected tag !!bool"):
		return "expected true or false, without quotes"
	}
	return messageName.ReplaceAllString(message, "expected a mapping of fields")
}

// validate checks the schema's rules. What is wrong in a field that could not
// be decoded is not said again.
func (r *report) validate(cfg *configv1.Config) {
	var invalid *protovalidate.ValidationError
	err := protovalidate.Validate(cfg)
	if err == nil {
		return
	}
	if !errors.As(err, &invalid) {
		r.faultAt(1, 1, "", err.Error())
		return
	}
	for _, v := range invalid.Violations {
		path := protovalidate.FieldPathString(v.Proto.GetField())
		if r.under(path) {
			continue
		}
		if names := oneofFields(cfg.ProtoReflect().Descriptor(), path); names != nil {
			r.fault(parent(path), "one of %s is required", strings.Join(names, ", "))
			continue
		}
		r.fault(path, "%s", ruleMessage(v))
	}
}

// namePattern is the schema's rule for names.
const namePattern = "^[a-z0-9]([-a-z0-9_.]{0,62})$"

const spiffePattern = "^spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)+$"

const nameRule = "a name is 1 to 63 lower-case letters, digits, '-', '_' and '.', and begins with a letter or digit"

// patterns are the schema's regular expressions, in words.
var patterns = map[string]string{
	namePattern:                        nameRule,
	"^([a-z0-9]([-a-z0-9_.]{0,62}))?$": nameRule,
	"^[a-z0-9-]{0,64}$":                "a header name is lower-case letters, digits and '-'",
	"^[a-z0-9-]{1,64}$":                "a header name is lower-case letters, digits and '-'",
	spiffePattern:                      "want a SPIFFE id, as spiffe://example.org/team/alice",
	"^hmac-sha256:[0-9a-f]{64}$":       "want hmac-sha256: and 64 hexadecimal digits, as `weir key hash` prints",
}

// ruleMessage says what a rule wants. It repeats no value.
func ruleMessage(v *protovalidate.Violation) string {
	if v.Proto.GetRuleId() == "repeated.min_items" {
		return "at least one is required"
	}
	text, isString := v.FieldValue.Interface().(string)
	if isString && text == "" {
		return "is required"
	}
	if v.RuleDescriptor != nil && v.RuleDescriptor.Name() == "pattern" {
		if words, ok := patterns[v.RuleValue.String()]; ok {
			return words
		}
	}
	message := strings.TrimPrefix(v.Proto.GetMessage(), "value ")
	message = strings.Replace(message, "in list [, ", "in list [", 1) // "" stands for the default
	return strings.TrimPrefix(message, "repeated value ")
}

// oneofFields are the fields of the oneof that a path names, if it names one.
func oneofFields(schema protoreflect.MessageDescriptor, path string) []string {
	steps := strings.Split(path, ".")
	for _, step := range steps[:len(steps)-1] {
		name, _, _ := strings.Cut(step, "[")
		field := findField(schema, name)
		if field == nil || field.Message() == nil {
			return nil
		}
		schema = field.Message()
	}
	oneof := schema.Oneofs().ByName(protoreflect.Name(steps[len(steps)-1]))
	if oneof == nil {
		return nil
	}
	var names []string
	for i := range oneof.Fields().Len() {
		names = append(names, string(oneof.Fields().Get(i).Name()))
	}
	return names
}

// index is the path of an item of a list.
func index(list string, i int) string { return fmt.Sprintf("%s[%d]", list, i) }
