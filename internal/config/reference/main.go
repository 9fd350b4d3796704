// Command reference writes docs/reference: config.md from the comments of the
// configuration's schema, and adapters.md from the table of profiles. The shape of the
// first comes from the compiled descriptors, the
// words from the text of the .proto file.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	configv1 "github.com/weirproxy/weir/proto/weir/config/v1"
)

func main() {
	in := flag.String("proto", "", "the text of the schema")
	out := flag.String("out", "", "the page to write")
	kinds := flag.String("adapters", "", "the page of the adapters to write")
	flag.Parse()
	if err := errors.Join(generate(*in, *out), os.WriteFile(*kinds, adapters(), 0o644)); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

func generate(in, out string) error {
	text, err := os.ReadFile(in)
	if err != nil {
		return err
	}
	content, err := page(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", in, err)
	}
	return os.WriteFile(out, content, 0o644)
}

const head = `# Configuration reference

<!-- Generated from proto/weir/config/v1/config.proto by go generate ./internal/config/... Do not edit. -->

A configuration is one YAML file. ` + "`weir validate FILE`" + ` checks it and names every fault at once, each as
` + "`file:line:col: path: what is wrong`" + `. Fields that are not known, given twice or of the wrong type are faults; names
may be written in snake_case or lowerCamelCase. YAML anchors, aliases and merge keys (` + "`<<`" + `) work. Durations are written
with their unit (` + "`250ms`, `30s`, `2m`, `1h`" + `), and whole numbers may have a decimal or binary suffix (` + "`100k`, `32Mi`" + `).

Secrets are never written in the file but referred to: see [SecretRef](#secretref). Paths of files are relative to the
configuration file.
`

// page is the reference as Markdown: the file's fields, then each kind of
// object in the order in which it is first used.
func page(schema string) ([]byte, error) {
	words, err := comments(schema)
	if err != nil {
		return nil, err
	}
	root := (&configv1.Config{}).ProtoReflect().Descriptor()
	var b bytes.Buffer
	b.WriteString(head)
	for _, m := range messages(root) {
		title := string(m.Name())
		if m == root {
			title = "The file"
		}
		about, ok := words[string(m.Name())]
		if !ok {
			return nil, fmt.Errorf("message %s has no comment", m.Name())
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", title, about)
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			about, ok := words[string(m.Name())+"."+string(f.Name())]
			if !ok {
				return nil, fmt.Errorf("field %s.%s has no comment", m.Name(), f.Name())
			}
			fmt.Fprintf(&b, "- **`%s`** (%s): %s\n", f.Name(), facts(f), strings.ReplaceAll(about, "\n", "\n  "))
		}
	}
	return b.Bytes(), nil
}

// messages are those of the schema's package that are reachable from m, m first.
func messages(m protoreflect.MessageDescriptor) []protoreflect.MessageDescriptor {
	list := []protoreflect.MessageDescriptor{m}
	seen := map[protoreflect.FullName]bool{m.FullName(): true}
	for i := 0; i < len(list); i++ {
		for j := range list[i].Fields().Len() {
			next := list[i].Fields().Get(j).Message()
			if next != nil && next.ParentFile() == m.ParentFile() && !seen[next.FullName()] {
				seen[next.FullName()] = true
				list = append(list, next)
			}
		}
	}
	return list
}

// facts are a field's type and the rules that the schema states for it.
func facts(f protoreflect.FieldDescriptor) string {
	words := typeName(f)
	if f.IsList() {
		words = "list of " + words
	}
	if o := f.ContainingOneof(); o != nil && !o.IsSynthetic() {
		return words + "; exactly one of " + oneofNames(o)
	}
	rules, _ := proto.GetExtension(f.Options(), validate.E_Field).(*validate.FieldRules)
	if s := rules.GetString(); s != nil && len(s.GetIn()) > 0 {
		var choices []string
		for _, choice := range s.GetIn() {
			if choice != "" {
				choices = append(choices, "`"+choice+"`")
			}
		}
		words += ": " + strings.Join(choices, ", ")
	}
	if required(rules) {
		words += "; required"
	}
	return words
}

func oneofNames(o protoreflect.OneofDescriptor) string {
	names := make([]string, 0, o.Fields().Len())
	for i := range o.Fields().Len() {
		names = append(names, "`"+string(o.Fields().Get(i).Name())+"`")
	}
	return strings.Join(names, ", ")
}

func required(rules *validate.FieldRules) bool {
	s := rules.GetString()
	inList := len(s.GetIn()) > 0
	for _, choice := range s.GetIn() {
		inList = inList && choice != ""
	}
	return rules.GetRequired() || rules.GetRepeated().GetMinItems() > 0 || s.GetMinLen() > 0 || inList ||
		strings.HasPrefix(s.GetPattern(), "^[a-z0-9](")
}

func typeName(f protoreflect.FieldDescriptor) string {
	switch m := f.Message(); {
	case m != nil && m.FullName() == "google.protobuf.Duration":
		return "duration"
	case m != nil:
		return fmt.Sprintf("[%s](#%s)", m.Name(), strings.ToLower(string(m.Name())))
	}
	switch f.Kind() {
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.StringKind:
		return "text"
	case protoreflect.DoubleKind:
		return "number"
	default:
		return "whole number"
	}
}

var (
	messageLine = regexp.MustCompile(`^message (\w+) \{$`)
	fieldLine   = regexp.MustCompile(`^\s+(?:repeated |optional )?[\w.]+ (\w+) = \d+`)
)

// comments are the words before each message ("Name") and field ("Name.field")
// of a .proto file in which every message stands at the top level.
func comments(schema string) (map[string]string, error) {
	words := map[string]string{}
	message := ""
	var pending []string
	for line := range strings.Lines(schema) {
		line = strings.TrimRight(line, "\n")
		if comment, ok := strings.CutPrefix(strings.TrimSpace(line), "//"); ok {
			pending = append(pending, strings.TrimPrefix(comment, " "))
			continue
		}
		name := ""
		if m := messageLine.FindStringSubmatch(line); m != nil {
			message, name = m[1], m[1]
		} else if m := fieldLine.FindStringSubmatch(line); m != nil && message != "" {
			name = message + "." + m[1]
		}
		if name != "" && len(pending) > 0 {
			if words[name] != "" {
				return nil, fmt.Errorf("%s is defined twice", name)
			}
			words[name] = strings.Join(pending, "\n")
		}
		pending = nil
	}
	return words, nil
}
