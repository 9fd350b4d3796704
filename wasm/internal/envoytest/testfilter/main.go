// Command testfilter is a Wasm filter for tests in a real Envoy. Its plugin
// configuration says what it does: "calls" checks the host calls that weir's
// filters make, "bodies" changes whole bodies, "trap" is the adapter with a way
// to kill the VM.
package main

import (
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm"
	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/types"

	"github.com/weirproxy/weir/wasm/adapter"
	_ "github.com/weirproxy/weir/wasm/bridge"
)

func init() { proxywasm.SetVMContext(&vm{VMContext: adapter.VM()}) }

func main() {}

type vm struct{ types.VMContext }

func (v *vm) NewPluginContext(id uint32) types.PluginContext {
	return &plugin{PluginContext: v.VMContext.NewPluginContext(id)}
}

// plugin is the adapter's, and more.
type plugin struct {
	types.PluginContext
	config string
}

func (p *plugin) OnPluginStart(size int) types.OnPluginStartStatus {
	config, err := proxywasm.GetPluginConfiguration()
	if err != nil {
		proxywasm.LogCriticalf("plugin configuration: %v", err)
		return types.OnPluginStartStatusFailed
	}
	p.config = string(config)
	return p.PluginContext.OnPluginStart(size)
}

func (p *plugin) NewHttpContext(id uint32) types.HttpContext {
	switch p.config {
	case "calls":
		return &calls{}
	case "noop":
		return &types.DefaultHttpContext{}
	case "bodies":
		return &bodies{}
	}
	return &trap{HttpContext: p.PluginContext.NewHttpContext(id)}
}
