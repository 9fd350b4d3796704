package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The committed file is what the pinned SDK gives.
func TestGeneratedFileIsCurrent(t *testing.T) {
	dir, err := sdkDir()
	if err != nil {
		t.Fatal(err)
	}
	want, err := generate(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../host_wasip1.go")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("host_wasip1.go differs from what the SDK gives: run go generate ./wasm/bridge\n%s", diff)
	}
}

// An SDK that the generator does not understand is refused by name.
func TestGenerateRefuses(t *testing.T) {
	const exports = "package internal\n\n//export proxy_x\nfunc ProxyX()\n"
	for name, tc := range map[string]struct{ exports, host, want string }{
		"no interface": {exports, "package internal", "no interface ProxyWasmHost"},
		"unknown type": {exports, "package internal\ntype ProxyWasmHost interface { ProxyX(a Strange) Status }", "ProxyX: unknown type Strange"},
		"not exported": {exports, "package internal\ntype ProxyWasmHost interface { ProxyY() Status }", "ProxyY has no //export line"},
		"no size":      {exports, "package internal\ntype ProxyWasmHost interface { ProxyX(a **byte) Status }", "a is not followed by its size"},
		"not Go":       {exports, "package", "expected"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			internal := filepath.Join(dir, "proxywasm", "internal")
			if err := os.MkdirAll(internal, 0o755); err != nil {
				t.Fatal(err)
			}
			for file, text := range map[string]string{"abi_hostcalls.go": tc.exports, "abi_hostcalls_mock.go": tc.host} {
				if err := os.WriteFile(filepath.Join(internal, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := generate(dir); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got error %v, want %q", err, tc.want)
			}
		})
	}
}
