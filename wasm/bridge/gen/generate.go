package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"go/format"
	"strings"
)

//go:embed header.txt
var header string

// generate renders host_wasip1.go from the SDK's source in dir.
func generate(dir string) ([]byte, error) {
	ms, err := methods(dir)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(header)
	b.WriteString("type sdkHost interface {\n")
	for _, m := range ms {
		fmt.Fprintf(&b, "\t%s(%s) uint32\n", m.name, signature(m.params))
	}
	b.WriteString("}\n")
	for _, m := range ms {
		if err := m.render(&b); err != nil {
			return nil, err
		}
	}
	b.WriteString(keepComment)
	for _, m := range ms {
		fmt.Fprintf(&b, "\ttheHost.%s(%s)\n", m.name, zeros(m.params))
	}
	b.WriteString("}\n")
	return format.Source(b.Bytes())
}

const keepComment = `
// keep is never run: its calls through sdkHost keep the methods in the binary.
// The linker keeps a method when an interface call has its name and its type,
// and the SDK's own calls have the SDK's named types; a method that is not kept
// would be a nil entry in the interface's table.
func keep() {
`

// render writes the import of one host call and the method that makes it.
func (m method) render(b *bytes.Buffer) error {
	imp, err := m.hostImport()
	if err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	name := "import" + strings.TrimPrefix(m.name, "Proxy")
	fmt.Fprintf(b, "\n//go:wasmimport env %s\nfunc %s(%s) uint32\n", m.abi, name, strings.Join(imp.params, ", "))
	fmt.Fprintf(b, "\nfunc (host) %s(%s) uint32 {\n", m.name, signature(m.params))
	call := name + "(" + strings.Join(imp.args, ", ") + ")"
	if len(imp.before) == 0 {
		fmt.Fprintf(b, "\treturn %s\n}\n", call)
		return nil
	}
	fmt.Fprintf(b, "\t%s\n\tstatus := %s\n\t%s\n}\n",
		strings.Join(imp.before, "\n\t"), call, strings.Join(imp.after, "\n\t"))
	return nil
}

// hostCall is a host call as wasm sees it: 32-bit sizes, and return values
// through the bridge's variables.
type hostCall struct {
	params, args  []string
	before, after []string
}

func (m method) hostImport() (hostCall, error) {
	var c hostCall
	last := "return status"
	for i := 0; i < len(m.params); i++ {
		p := m.params[i]
		switch p.typ {
		case "**byte":
			if i+1 == len(m.params) || m.params[i+1].typ != "*int" {
				return c, fmt.Errorf("%s is not followed by its size", p.name)
			}
			size := m.params[i+1].name
			c.params = append(c.params, p.name+" *uint32", size+" *uint32")
			c.args = append(c.args, "&retData", "&retSize")
			c.before = append(c.before, "retData, retSize = 0, 0")
			last = fmt.Sprintf("return take(status, %s, %s)", p.name, size)
			i++
		case "*uint32", "*uint64":
			slot := map[string]string{"*uint32": "ret32", "*uint64": "ret64"}[p.typ]
			c.params = append(c.params, p.name+" "+p.typ)
			c.args = append(c.args, "&"+slot)
			c.before = append(c.before, slot+" = 0")
			c.after = append(c.after, "*"+p.name+" = "+slot)
		case "int":
			c.params = append(c.params, p.name+" uint32")
			c.args = append(c.args, "uint32("+p.name+")")
		case "*byte", "int32", "int64", "uint32", "uint64":
			c.params = append(c.params, p.name+" "+p.typ)
			c.args = append(c.args, p.name)
		default:
			return c, fmt.Errorf("no rule for %s %s", p.name, p.typ)
		}
	}
	c.after = append(c.after, last)
	return c, nil
}

func signature(ps []param) string {
	words := make([]string, len(ps))
	for i, p := range ps {
		words[i] = p.name + " " + p.typ
	}
	return strings.Join(words, ", ")
}

func zeros(ps []param) string {
	words := make([]string, len(ps))
	for i, p := range ps {
		words[i] = "0"
		if strings.HasPrefix(p.typ, "*") {
			words[i] = "nil"
		}
	}
	return strings.Join(words, ", ")
}
