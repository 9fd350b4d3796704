//go:build wasip1 && !tinygo

package bridge

import (
	"fmt"
	"unsafe"
)

// bufferResponseBody is the ABI's number of the response body.
const bufferResponseBody = 1

func readResponse(buf []byte, start, size int) ([]byte, error) {
	if cap(buf) < size {
		buf = make([]byte, size+size/2)
	}
	buf = buf[:cap(buf)]
	retData, retSize = 0, 0
	lent = buf
	status := importGetBufferBytes(bufferResponseBody, uint32(start), uint32(size), &retData, &retSize)
	lent = nil
	if status != 0 {
		return buf[:0], fmt.Errorf("read the response body: host status %d", status)
	}
	if retData == 0 {
		return buf[:0], nil
	}
	return buf[:min(int(retSize), size)], nil
}

func setState(path string, value []byte) error {
	status := importSetProperty(unsafe.StringData(path), uint32(len(path)), unsafe.SliceData(value), uint32(len(value)))
	if status != 0 {
		return fmt.Errorf("set filter state %s: host status %d", path, status)
	}
	return nil
}
