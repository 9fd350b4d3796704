// Command adapter is the Wasm filter of package adapter. It is built for
// GOOS=wasip1 GOARCH=wasm with -buildmode=c-shared: the host then starts it by
// its init functions and never runs main.
package main

import (
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm"

	"github.com/weirproxy/weir/wasm/adapter"
	_ "github.com/weirproxy/weir/wasm/bridge"
)

func init() { proxywasm.SetVMContext(adapter.VM()) }

func main() {}
