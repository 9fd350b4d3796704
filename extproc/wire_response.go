package extproc

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/internal/probe"
)

// The numbers of the fields of envoy.service.ext_proc.v3.ProcessingResponse and
// the messages in it.
const (
	fieldHeadersAnswer   = 1 // ProcessingResponse
	fieldBodyAnswer      = 3
	fieldImmediate       = 7
	fieldDynamicMetadata = 8

	fieldCommon          = 1 // HeadersResponse, BodyResponse
	fieldHeaderMutation  = 2 // CommonResponse
	fieldBodyMutation    = 3
	fieldClearRouteCache = 5

	fieldSetHeaders    = 1 // HeaderMutation
	fieldRemoveHeaders = 2
	fieldOptionHeader  = 1 // HeaderValueOption
	fieldAppendAction  = 3

	fieldStatus           = 1 // ImmediateResponse
	fieldImmediateHeaders = 2
	fieldImmediateBody    = 3
	fieldDetails          = 5
	fieldStatusCode       = 1 // HttpStatus

	fieldStructFields = 1 // google.protobuf.Struct
	fieldMapKey       = 1
	fieldMapValue     = 2
	fieldNumber       = 2 // google.protobuf.Value
	fieldString       = 3
	fieldStruct       = 5
	fieldList         = 6
	fieldListValues   = 1 // google.protobuf.ListValue
)

// overwrite is HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD: the default would
// append to what the client sent.
const overwrite = 2

// goOn answers the headers message: HeadersResponse{CommonResponse{CONTINUE}}.
var goOn = []byte{fieldHeadersAnswer<<3 | 2, 2, fieldCommon<<3 | 2, 0}

// forward is the answer to the body message of a request that is let through.
type forward struct {
	set      []pipeline.Header
	body     []byte // as it came
	edits    []openai.Edit
	id       string
	adapter  ai.AdapterRequest
	targets  []*plan.Pool
	newSize  int // of the body after the edits
	scratch  []byte
	metadata []byte
}

// dropped are the headers that end at weir: the client's credentials, and what only
// the doctor may mean.
var dropped = appendStrings(nil, fieldRemoveHeaders, "authorization", "proxy-authorization", "x-api-key", "api-key", "cookie", probe.Header)

// size prepares the parts and returns the length of the message.
func (f *forward) size() int {
	f.scratch = f.scratch[:0]
	for _, h := range f.set {
		f.scratch = appendSetHeader(f.scratch, h.Name, h.Value)
	}
	f.scratch = append(f.scratch, dropped...)
	f.metadata = f.appendMetadata(f.metadata[:0])
	return sized(sized(f.commonSize())) + sized(len(f.metadata))
}

func (f *forward) commonSize() int {
	n := sized(len(f.scratch)) + 2 // and clear_route_cache
	if len(f.edits) > 0 {
		n += sized(sized(f.newSize))
	}
	return n
}

// append appends the message; size was called before it.
func (f *forward) append(b []byte) ([]byte, error) {
	common := f.commonSize()
	b = appendHead(b, fieldBodyAnswer, sized(common))
	b = appendHead(b, fieldCommon, common)
	b = appendHead(b, fieldHeaderMutation, len(f.scratch))
	b = append(b, f.scratch...)
	if len(f.edits) > 0 {
		b = appendHead(b, fieldBodyMutation, sized(f.newSize))
		b = appendHead(b, fieldBody, f.newSize)
		var err error
		if b, err = openai.Apply(b, f.body, f.edits); err != nil {
			return nil, err
		}
	}
	b = appendVarint(b, fieldClearRouteCache, 1)
	b = appendHead(b, fieldDynamicMetadata, len(f.metadata))
	return append(b, f.metadata...), nil
}

// appendMetadata appends a google.protobuf.Struct: what the adapter and the
// access log read, and the targets as Envoy's priority_group specifier reads them.
func (f *forward) appendMetadata(b []byte) []byte {
	b, weir := beginStruct(b, ai.MetadataNamespace)
	b = appendString(b, ai.MetaID, f.id)
	b = appendString(b, ai.MetaRequest, f.adapter.String())
	b = weir.end(b)

	b, targets := beginStruct(b, ai.PriorityNamespace)
	b, groups := beginList(b, "priority_groups")
	for _, pool := range f.targets {
		b = appendGroup(b, pool)
	}
	b = groups.end(b)
	return targets.end(b)
}

// appendGroup appends {name: <pool>, clusters: [{cluster_name: …, weight: 1}]}.
func appendGroup(b []byte, pool *plan.Pool) []byte {
	b, group := beginElement(b)
	b = appendString(b, "name", pool.Name)
	b, clusters := beginList(b, "clusters")
	b, cluster := beginElement(b)
	b = appendString(b, "cluster_name", ai.ClusterName(pool.Name))
	b = appendNumber(b, "weight", 1)
	b = cluster.end(b)
	b = clusters.end(b)
	return group.end(b)
}

// immediate is an answer that weir gives itself.
type immediate struct {
	status  int
	headers []pipeline.Header
	body    []byte
}

// details is what Envoy's access log shows as response code details.
const details = "weir"

func (im *immediate) append(b []byte) []byte {
	b, msg := begin(b, fieldImmediate)
	b, status := begin(b, fieldStatus)
	b = appendVarint(b, fieldStatusCode, uint64(im.status))
	b = status.end(b)
	b, headers := begin(b, fieldImmediateHeaders)
	for _, h := range im.headers {
		b = appendSetHeader(b, h.Name, h.Value)
	}
	b = headers.end(b)
	b = protowire.AppendTag(b, fieldImmediateBody, protowire.BytesType)
	b = protowire.AppendBytes(b, im.body)
	b = protowire.AppendTag(b, fieldDetails, protowire.BytesType)
	b = protowire.AppendString(b, details)
	return msg.end(b)
}

// appendSetHeader appends a HeaderValueOption that overwrites.
func appendSetHeader(b []byte, name, value string) []byte {
	b, option := begin(b, fieldSetHeaders)
	b, header := begin(b, fieldOptionHeader)
	b = protowire.AppendTag(b, fieldKey, protowire.BytesType)
	b = protowire.AppendString(b, name)
	b = protowire.AppendTag(b, fieldRawValue, protowire.BytesType)
	b = protowire.AppendString(b, value)
	b = header.end(b)
	b = appendVarint(b, fieldAppendAction, overwrite)
	return option.end(b)
}

func appendStrings(b []byte, num protowire.Number, values ...string) []byte {
	for _, v := range values {
		b = protowire.AppendTag(b, num, protowire.BytesType)
		b = protowire.AppendString(b, v)
	}
	return b
}

func appendVarint(b []byte, num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

// appendHead appends what stands before a length-delimited field of n bytes.
func appendHead(b []byte, num protowire.Number, n int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.BytesType), uint64(n))
}

// sized is the length of a length-delimited field of n bytes, with its head. All
// field numbers here are below 16: the tag is one byte.
func sized(n int) int { return 1 + protowire.SizeBytes(n) }

// nest is the length-delimited fields that are being written, one in another:
// where the content of each begins.
type nest struct {
	at    [3]int
	depth int
}

// begin begins a length-delimited field of unknown length.
func begin(b []byte, num protowire.Number) ([]byte, nest) {
	var n nest
	b = n.open(b, num)
	return b, n
}

// open begins a field within; one byte is kept for its length.
func (n *nest) open(b []byte, num protowire.Number) []byte {
	b = append(protowire.AppendTag(b, num, protowire.BytesType), 0)
	n.at[n.depth] = len(b)
	n.depth++
	return b
}

// end writes the lengths, innermost first. Content of 128 bytes and more is moved
// to make room for a longer length.
func (n nest) end(b []byte) []byte {
	for n.depth > 0 {
		n.depth--
		at := n.at[n.depth]
		size := len(b) - at
		var varint [10]byte
		length := protowire.AppendVarint(varint[:0], uint64(size))
		if extra := len(length) - 1; extra > 0 {
			b = append(b, varint[:extra]...)
			copy(b[at+extra:], b[at:at+size])
		}
		copy(b[at-1:], length)
	}
	return b
}

// beginStruct begins the field name of a Struct, which holds a Struct.
func beginStruct(b []byte, name string) ([]byte, nest) {
	var n nest
	b = beginField(b, &n, name)
	b = n.open(b, fieldStruct)
	return b, n
}

// beginList begins the field name of a Struct, which holds a list.
func beginList(b []byte, name string) ([]byte, nest) {
	var n nest
	b = beginField(b, &n, name)
	b = n.open(b, fieldList)
	return b, n
}

// beginElement begins an element of a list, which is a Struct.
func beginElement(b []byte) ([]byte, nest) {
	var n nest
	b = n.open(b, fieldListValues)
	b = n.open(b, fieldStruct)
	return b, n
}

func beginField(b []byte, n *nest, name string) []byte {
	b = n.open(b, fieldStructFields)
	b = protowire.AppendTag(b, fieldMapKey, protowire.BytesType)
	b = protowire.AppendString(b, name)
	return n.open(b, fieldMapValue)
}

func appendString(b []byte, name, value string) []byte {
	var n nest
	b = beginField(b, &n, name)
	b = protowire.AppendTag(b, fieldString, protowire.BytesType)
	b = protowire.AppendString(b, value)
	return n.end(b)
}

func appendNumber(b []byte, name string, value float64) []byte {
	var n nest
	b = beginField(b, &n, name)
	b = protowire.AppendTag(b, fieldNumber, protowire.Fixed64Type)
	b = protowire.AppendFixed64(b, math.Float64bits(value))
	return n.end(b)
}
