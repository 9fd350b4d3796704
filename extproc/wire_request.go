package extproc

import (
	"errors"
	"fmt"
	"unsafe"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/weirproxy/weir/extproc/pipeline"
)

// part is which part of a request or response a message of Envoy's is about.
type part uint8

const (
	partNone part = iota
	partHeaders
	partBody
	partOther // response parts and trailers, which weir never asks for
)

// bodyMode is how Envoy was told to send the request's body; the numbers are
// those of envoy.extensions.filters.http.ext_proc.v3.ProcessingMode.BodySendMode.
type bodyMode uint8

const (
	bodyNone     bodyMode = 0
	bodyBuffered bodyMode = 2
)

// request is what weir reads of envoy.service.ext_proc.v3.ProcessingRequest. It
// is decoded by hand, in place: its strings and bytes lie in the received
// buffer, which release gives back.
type request struct {
	part        part
	headers     []pipeline.Header
	endOfStream bool
	body        []byte
	// modeKnown tells whether Envoy said how it was told to send bodies.
	modeKnown bool
	mode      bodyMode

	buffer mem.Buffer
}

// release forgets the message and gives its buffer back.
func (r *request) release() {
	if r.buffer != nil {
		r.buffer.Free()
	}
	clear(r.headers)
	*r = request{headers: r.headers[:0]}
}

// The numbers of the fields, from envoy/service/ext_proc/v3/external_processor.proto
// and envoy/config/core/v3/base.proto.
const (
	fieldRequestHeaders  = 2 // ProcessingRequest
	fieldResponseHeaders = 3
	fieldRequestBody     = 4
	fieldResponseBody    = 5
	fieldRequestTrailers = 6
	fieldResponseTrailer = 7
	fieldProtocolConfig  = 11

	fieldHeaderMap   = 1 // HttpHeaders
	fieldEndOfStream = 3
	fieldHeader      = 1 // HeaderMap
	fieldKey         = 1 // HeaderValue
	fieldValue       = 2
	fieldRawValue    = 3

	fieldBody            = 1 // HttpBody
	fieldBodyEnd         = 2
	fieldRequestBodyMode = 1 // ProtocolConfiguration
)

var errTwoParts = errors.New("message has two parts")

// decode reads a message. The request holds on to data.
func (r *request) decode(data []byte) error {
	return fields(data, func(num protowire.Number, value []byte) error {
		switch num {
		case fieldRequestHeaders:
			return r.take(partHeaders, func() error { return r.decodeHeaders(value) })
		case fieldRequestBody:
			return r.take(partBody, func() error { return r.decodeBody(value) })
		case fieldResponseHeaders, fieldResponseBody, fieldRequestTrailers, fieldResponseTrailer:
			return r.take(partOther, func() error { return nil })
		case fieldProtocolConfig:
			r.modeKnown = true
			return fields(value, ignored, func(num protowire.Number, v uint64) {
				if num == fieldRequestBodyMode {
					r.mode = bodyMode(min(v, 255))
				}
			})
		}
		return nil
	}, nil)
}

func (r *request) take(p part, decode func() error) error {
	if r.part != partNone {
		return errTwoParts
	}
	r.part = p
	return decode()
}

func (r *request) decodeHeaders(data []byte) error {
	return fields(data, func(num protowire.Number, value []byte) error {
		if num != fieldHeaderMap {
			return nil
		}
		return fields(value, func(num protowire.Number, value []byte) error {
			if num != fieldHeader {
				return nil
			}
			return r.decodeHeader(value)
		}, nil)
	}, func(num protowire.Number, v uint64) {
		if num == fieldEndOfStream {
			r.endOfStream = v != 0
		}
	})
}

func (r *request) decodeHeader(data []byte) error {
	var h pipeline.Header
	err := fields(data, func(num protowire.Number, value []byte) error {
		switch num {
		case fieldKey:
			h.Name = alias(value)
		case fieldValue, fieldRawValue: // Envoy sets one of the two
			if len(value) > 0 {
				h.Value = alias(value)
			}
		}
		return nil
	}, nil)
	r.headers = append(r.headers, h)
	return err
}

func (r *request) decodeBody(data []byte) error {
	return fields(data, func(num protowire.Number, value []byte) error {
		if num == fieldBody {
			r.body = value
		}
		return nil
	}, func(num protowire.Number, v uint64) {
		if num == fieldBodyEnd {
			r.endOfStream = v != 0
		}
	})
}

func ignored(protowire.Number, []byte) error { return nil }

// fields calls onBytes with each length-delimited field of a message, and
// onVarint, unless it is nil, with each varint; other wire types are passed over.
func fields(data []byte, onBytes func(protowire.Number, []byte) error, onVarint func(protowire.Number, uint64)) error {
	for len(data) > 0 {
		num, typ, n := protowire.ConsumeTag(data)
		if n < 0 {
			return fmt.Errorf("tag: %w", protowire.ParseError(n))
		}
		data = data[n:]
		var err error
		switch typ {
		case protowire.BytesType:
			var value []byte
			if value, n = protowire.ConsumeBytes(data); n >= 0 {
				err = onBytes(num, value)
			}
		case protowire.VarintType:
			var v uint64
			if v, n = protowire.ConsumeVarint(data); n >= 0 && onVarint != nil {
				onVarint(num, v)
			}
		default:
			n = protowire.ConsumeFieldValue(num, typ, data)
		}
		if n < 0 {
			err = protowire.ParseError(n)
		}
		if err != nil {
			return fmt.Errorf("field %d: %w", num, err)
		}
		data = data[n:]
	}
	return nil
}

// alias is b as a string, without a copy: it is valid as long as b's buffer.
func alias(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b))
}
