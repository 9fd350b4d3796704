//go:build wasip1 && !tinygo

package bridge

import (
	"fmt"
	"unsafe"
)

func answer(code int, details string, headers [][2]string, body []byte) error {
	list := appendMap(nil, headers)
	status := importSendLocalResponse(uint32(code), unsafe.StringData(details), uint32(len(details)),
		unsafe.SliceData(body), uint32(len(body)), unsafe.SliceData(list), uint32(len(list)), noGRPCStatus)
	if status != 0 {
		return fmt.Errorf("answer: host status %d", status)
	}
	return nil
}
