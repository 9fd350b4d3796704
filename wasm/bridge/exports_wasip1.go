//go:build wasip1 && !tinygo

package bridge

import (
	_ "unsafe" // for go:linkname

	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/types"
)

// The callbacks that the host calls, under the names of the proxy-wasm ABI 0.2.1,
// each handed to the SDK's internal function of that callback.

// The marker by which the host knows the ABI: it then passes end_of_stream with
// headers.
//
//go:wasmexport proxy_abi_version_0_2_1
func exportABIVersion() {}

//go:wasmexport proxy_on_memory_allocate
func exportMemoryAllocate(size uint32) uint32 { return allocate(size) }

func flag(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

//go:linkname onVMStart github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/internal.proxyOnVMStart
func onVMStart(id uint32, size int) bool

//go:wasmexport proxy_on_vm_start
func exportVMStart(id, size uint32) uint32 { return flag(onVMStart(id, int(size))) }

//go:linkname onConfigure github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/internal.proxyOnConfigure
func onConfigure(id uint32, size int) bool

//go:wasmexport proxy_on_configure
func exportConfigure(id, size uint32) uint32 { return flag(onConfigure(id, int(size))) }

//go:linkname onContextCreate github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/internal.proxyOnContextCreate
func onContextCreate(id uint32, root uint32)

//go:wasmexport proxy_on_context_create
func exportContextCreate(id, root uint32) { onContextCreate(id, root) }

//go:linkname onRequestHeaders github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/internal.proxyOnRequestHeaders
func onRequestHeaders(id uint32, count int, end bool) types.Action

//go:wasmexport proxy_on_request_headers
func exportRequestHeaders(id, count, end uint32) uint32 {
	return uint32(onRequestHeaders(id, int(count), end != 0))
}

//go:linkname onRequestBody github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/internal.proxyOnRequestBody
func onRequestBody(id uint32, size int, end bool) types.Action

//go:wasmexport proxy_on_request_body
func exportRequestBody(id, size, end uint32) uint32 {
	return uint32(onRequestBody(id, int(size), end != 0))
}

//go:linkname onRequestTrailers github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/internal.proxyOnRequestTrailers
func onRequestTrailers(id uint32, count int) types.Action

//go:wasmexport proxy_on_request_trailers
func exportRequestTrailers(id, count uint32) uint32 { return uint32(onRequestTrailers(id, int(count))) }

//go:linkname onResponseHeaders github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/internal.proxyOnResponseHeaders
func onResponseHeaders(id uint32, count int, end bool) types.Action

//go:wasmexport proxy_on_response_headers
func exportResponseHeaders(id, count, end uint32) uint32 {
	return uint32(onResponseHeaders(id, int(count), end != 0))
}

//go:linkname onResponseBody github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/internal.proxyOnResponseBody
func onResponseBody(id uint32, size int, end bool) types.Action

//go:wasmexport proxy_on_response_body
func exportResponseBody(id, size, end uint32) uint32 {
	return uint32(onResponseBody(id, int(size), end != 0))
}

//go:linkname onResponseTrailers github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/internal.proxyOnResponseTrailers
func onResponseTrailers(id uint32, count int) types.Action

//go:wasmexport proxy_on_response_trailers
func exportResponseTrailers(id, count uint32) uint32 {
	return uint32(onResponseTrailers(id, int(count)))
}

//go:linkname onDelete github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/internal.proxyOnDelete
func onDelete(id uint32)

//go:wasmexport proxy_on_delete
func exportDelete(id uint32) { onDelete(id) }

//go:linkname onTick github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/internal.proxyOnTick
func onTick(id uint32)

//go:wasmexport proxy_on_tick
func exportTick(id uint32) { onTick(id) }

//go:linkname onQueueReady github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/internal.proxyOnQueueReady
func onQueueReady(id uint32, queue uint32)

//go:wasmexport proxy_on_queue_ready
func exportQueueReady(id, queue uint32) { onQueueReady(id, queue) }

//go:linkname onHTTPCallResponse github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/internal.proxyOnHttpCallResponse
func onHTTPCallResponse(id uint32, callout uint32, headers int, body int, trailers int)

//go:wasmexport proxy_on_http_call_response
func exportHTTPCallResponse(id, callout, headers, body, trailers uint32) {
	onHTTPCallResponse(id, callout, int(headers), int(body), int(trailers))
}

//go:linkname onNewConnection github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/internal.proxyOnNewConnection
func onNewConnection(id uint32) types.Action

//go:wasmexport proxy_on_new_connection
func exportNewConnection(id uint32) uint32 { return uint32(onNewConnection(id)) }

//go:linkname onDownstreamData github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/internal.proxyOnDownstreamData
func onDownstreamData(id uint32, size int, end bool) types.Action

//go:wasmexport proxy_on_downstream_data
func exportDownstreamData(id, size, end uint32) uint32 {
	return uint32(onDownstreamData(id, int(size), end != 0))
}

//go:linkname onDownstreamClose github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/internal.proxyOnDownstreamConnectionClose
func onDownstreamClose(id uint32, peer types.PeerType)

//go:wasmexport proxy_on_downstream_connection_close
func exportDownstreamClose(id, peer uint32) { onDownstreamClose(id, types.PeerType(peer)) }

//go:linkname onUpstreamData github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/internal.proxyOnUpstreamData
func onUpstreamData(id uint32, size int, end bool) types.Action

//go:wasmexport proxy_on_upstream_data
func exportUpstreamData(id, size, end uint32) uint32 {
	return uint32(onUpstreamData(id, int(size), end != 0))
}

//go:linkname onUpstreamClose github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/internal.proxyOnUpstreamConnectionClose
func onUpstreamClose(id uint32, peer types.PeerType)

//go:wasmexport proxy_on_upstream_connection_close
func exportUpstreamClose(id, peer uint32) { onUpstreamClose(id, types.PeerType(peer)) }
