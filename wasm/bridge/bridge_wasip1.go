//go:build wasip1 && !tinygo

package bridge

import (
	"unsafe"

	// Linked in, so that the linknames resolve.
	_ "github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm"
)

//go:linkname registerHost github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm/internal.RegisterMockWasmHost
func registerHost(host sdkHost) (release func())

// host makes the SDK's host calls through the real imports.
type host struct{}

var theHost sdkHost = host{}

// keepAlive is a variable that nobody sets, so that the compiler cannot know
// that keep is not called.
var keepAlive bool

func init() {
	registerHost(theHost)
	if keepAlive {
		keep()
	}
}

// Where the host writes its return values. They are globals because a
// goroutine's stack may move; a VM has one thread, and nothing that uses them
// runs while a host call is in flight but proxy_on_memory_allocate.
var (
	retData, retSize, ret32 uint32
	ret64                   uint64
)

// pinned holds the buffers that the host allocated and that no host call has
// taken yet: the host knows them as integers only.
var pinned [][]byte

// lent is memory that a call of this package lends to the host for its return
// value, or nil.
var lent []byte

// allocate gives the host a buffer for a return value.
func allocate(size uint32) uint32 {
	if uint64(size) <= uint64(len(lent)) {
		return address(lent)
	}
	buf := make([]byte, max(size, 1)) // a buffer of no bytes has an address too
	pinned = append(pinned, buf)
	return address(buf)
}

func address(buf []byte) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(buf)))) }

// take hands the buffer that the host filled to the SDK and drops all pins. A
// host that allocated nothing returned an empty value: data is nil then.
func take(status uint32, data **byte, size *int) uint32 {
	if status == 0 {
		*data, *size = nil, 0
		for _, buf := range pinned {
			if address(buf) == retData {
				*data, *size = &buf[0], min(int(retSize), len(buf))
			}
		}
	}
	clear(pinned)
	pinned = pinned[:0]
	return status
}
