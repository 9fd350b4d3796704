//go:build !wasip1 || tinygo

package bridge

import "github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm"

func readResponse(_ []byte, start, size int) ([]byte, error) {
	return proxywasm.GetHttpResponseBody(start, size)
}

func setState(path string, value []byte) error {
	return proxywasm.SetProperty([]string{path}, value)
}
