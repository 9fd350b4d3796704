package bridge

import "encoding/binary"

// Answer sends a response in the place of the backend's. The details are what
// Envoy's access log shows as response code details: the SDK's own call leaves
// them empty. Details and headers must not be empty.
func Answer(status int, details string, headers [][2]string, body []byte) error {
	return answer(status, details, headers, body)
}

// noGRPCStatus is what the host takes for none.
const noGRPCStatus = -1

// appendMap appends headers as the ABI has them: their number, the lengths of each
// name and value, then each name and value with a zero behind it; numbers are 32
// bits, little-endian.
func appendMap(b []byte, headers [][2]string) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(headers)))
	for _, h := range headers {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(h[0])))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(h[1])))
	}
	for _, h := range headers {
		b = append(append(b, h[0]...), 0)
		b = append(append(b, h[1]...), 0)
	}
	return b
}
