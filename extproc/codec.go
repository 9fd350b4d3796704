package extproc

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// codec is gRPC's protobuf codec, with the messages of ext_proc read and written
// by hand: most of what a generated decoder does is to allocate strings that
// weir looks at once. All other messages (health checks) go the usual way.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2(proto.Name)} }

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	r, ok := v.(*request)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	r.release()
	r.buffer = data.MaterializeToBuffer(mem.DefaultBufferPool())
	return r.decode(r.buffer.ReadOnlyData())
}

// Marshal implements encoding.CodecV2. gRPC frees what it returns.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case rawMessage:
		return mem.BufferSlice{mem.SliceBuffer(m)}, nil
	case *forward:
		return marshal(m.size(), m.append)
	}
	return c.CodecV2.Marshal(v)
}

// rawMessage is a message that is encoded already and never changes.
type rawMessage []byte

func marshal(size int, appendTo func([]byte) ([]byte, error)) (mem.BufferSlice, error) {
	if mem.IsBelowBufferPoolingThreshold(size) {
		b, err := appendTo(make([]byte, 0, size))
		return mem.BufferSlice{mem.SliceBuffer(b)}, err
	}
	pool := mem.DefaultBufferPool()
	buffer := pool.Get(size)
	b, err := appendTo((*buffer)[:0])
	if err != nil {
		pool.Put(buffer)
		return nil, err
	}
	*buffer = b
	return mem.BufferSlice{mem.NewBuffer(buffer, pool)}, nil
}
