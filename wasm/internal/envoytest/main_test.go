package envoytest_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/weirproxy/weir/wasm/internal/envoytest"
)

const module = "github.com/weirproxy/weir/wasm/"

// The product's filter, and the one for tests.
var adapterWasm, testWasm string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "weir-wasm-")
	if err == nil {
		defer os.RemoveAll(dir)
		adapterWasm, err = envoytest.Build(dir, module+"cmd/adapter")
	}
	if err == nil {
		testWasm, err = envoytest.Build(dir, module+"internal/envoytest/testfilter")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
