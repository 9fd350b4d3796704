//go:build !wasip1 || tinygo

package bridge

import (
	"errors"
	"math"

	"github.com/tetratelabs/proxy-wasm-go-sdk/proxywasm"
)

// replaceRequestHead does by whole bodies what the SDK's emulator cannot do by
// parts.
func replaceRequestHead(n int, head []byte) error {
	if n <= 0 || len(head) == 0 {
		return errors.New("replace request head: nothing to replace, or nothing to put there")
	}
	body, err := proxywasm.GetHttpRequestBody(0, math.MaxInt32)
	if err != nil {
		return err
	}
	out := append([]byte(nil), head...)
	return proxywasm.ReplaceHttpRequestBody(append(out, body[min(n, len(body)):]...))
}
