package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"strings"
)

// sdk is the module that the bridge implements the host of.
const sdk = "github.com/tetratelabs/proxy-wasm-go-sdk"

// sdkDir finds the source of the SDK at the version that go.mod pins.
func sdkDir() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", sdk).Output()
	if err != nil {
		return "", fmt.Errorf("go list -m %s: %w", sdk, err)
	}
	dir := strings.TrimSpace(string(out))
	if dir == "" {
		return "", errors.New(sdk + " is not downloaded: go mod download " + sdk)
	}
	return dir, nil
}

// method is one host call: its name in Go, its name in the ABI, its parameters.
type method struct {
	name   string
	abi    string
	params []param
}

// param has the type as the bridge writes it: the SDK's named integers are
// plain uint32 there.
type param struct {
	name, typ string
}

// methods reads the host calls from the SDK's source, in the interface's order.
func methods(dir string) ([]method, error) {
	internal := filepath.Join(dir, "proxywasm", "internal")
	names, err := abiNames(filepath.Join(internal, "abi_hostcalls.go"))
	if err != nil {
		return nil, err
	}
	iface, err := hostInterface(filepath.Join(internal, "abi_hostcalls_mock.go"))
	if err != nil {
		return nil, err
	}
	var ms []method
	for _, f := range iface.Methods.List {
		if len(f.Names) != 1 {
			return nil, errors.New("ProxyWasmHost embeds an interface")
		}
		m := method{name: f.Names[0].Name, abi: names[f.Names[0].Name]}
		if m.abi == "" {
			return nil, fmt.Errorf("%s has no //export line in abi_hostcalls.go", m.name)
		}
		if m.params, err = readParams(f.Type.(*ast.FuncType)); err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		ms = append(ms, m)
	}
	return ms, nil
}

// abiNames reads the lines "//export proxy_log" above "func ProxyLog(…)".
func abiNames(path string) (map[string]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, d := range file.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Doc == nil {
			continue
		}
		for _, c := range fn.Doc.List {
			if abi, ok := strings.CutPrefix(c.Text, "//export "); ok {
				names[fn.Name.Name] = strings.TrimSpace(abi)
			}
		}
	}
	return names, nil
}

func hostInterface(path string) (*ast.InterfaceType, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		return nil, err
	}
	var found *ast.InterfaceType
	ast.Inspect(file, func(n ast.Node) bool {
		if ts, ok := n.(*ast.TypeSpec); ok && ts.Name.Name == "ProxyWasmHost" {
			found, _ = ts.Type.(*ast.InterfaceType)
		}
		return found == nil
	})
	if found == nil {
		return nil, errors.New(path + ": no interface ProxyWasmHost")
	}
	return found, nil
}

func readParams(fn *ast.FuncType) ([]param, error) {
	var ps []param
	for _, f := range fn.Params.List {
		typ, err := bridgeType(f.Type)
		if err != nil {
			return nil, err
		}
		for _, n := range f.Names {
			ps = append(ps, param{n.Name, typ})
		}
	}
	return ps, nil
}

// bridgeType maps a parameter's type; one that the generator does not know is
// an error, so that a new SDK is looked at before it is used.
func bridgeType(e ast.Expr) (string, error) {
	switch t := e.(type) {
	case *ast.StarExpr:
		inner, err := bridgeType(t.X)
		return "*" + inner, err
	case *ast.Ident:
		switch t.Name {
		case "byte", "int", "int32", "int64", "uint32", "uint64":
			return t.Name, nil
		case "LogLevel", "MapType", "BufferType", "StreamType", "MetricType":
			return "uint32", nil
		}
		return "", fmt.Errorf("unknown type %s", t.Name)
	}
	return "", fmt.Errorf("unknown type %T", e)
}
