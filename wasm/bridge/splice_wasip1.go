//go:build wasip1 && !tinygo

package bridge

import (
	"errors"
	"fmt"
	"unsafe"
)

// bufferRequestBody is the ABI's number of the request body.
const bufferRequestBody = 0

func replaceRequestHead(n int, head []byte) error {
	if n <= 0 || len(head) == 0 {
		return errors.New("replace request head: nothing to replace, or nothing to put there")
	}
	status := importSetBufferBytes(bufferRequestBody, 0, uint32(n), unsafe.SliceData(head), uint32(len(head)))
	if status != 0 {
		return fmt.Errorf("replace request head: host status %d", status)
	}
	return nil
}
