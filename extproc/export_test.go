package extproc

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
)

// ProcessForTest is the handler of one stream.
func ProcessForTest(s *Server) func(grpc.ServerStream) error { return s.process }

// TestCodec decodes and encodes as the gRPC server does.
type TestCodec struct{ codec }

// NewTestCodec makes one.
func NewTestCodec() TestCodec { return TestCodec{newCodec()} }

// Decode reads data into v, from a buffer that is used again.
func (c TestCodec) Decode(data []byte, v any) error {
	buffer := mem.Copy(data, mem.DefaultBufferPool())
	defer buffer.Free()
	return c.Unmarshal(mem.BufferSlice{buffer}, v)
}

// Encode writes v and throws it away.
func (c TestCodec) Encode(v any) error {
	out, err := c.Marshal(v)
	out.Free()
	return err
}

// DecodeForTest decodes one message after another into the same memory.
func DecodeForTest() func([]byte) error {
	var r request
	return func(data []byte) error {
		r.release()
		return r.decode(data)
	}
}
