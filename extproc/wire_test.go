package extproc

import (
	"bytes"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	modev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/dialect/openai"
	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/plan"
)

// message is a message as Envoy sends it, with parts that weir does not read.
func message(name, value, body string, end bool) *pb.ProcessingRequest {
	m := &pb.ProcessingRequest{
		Attributes:     map[string]*structpb.Struct{"envoy.filters.http.ext_proc": {Fields: map[string]*structpb.Value{"x": structpb.NewNumberValue(1)}}},
		ProtocolConfig: &pb.ProtocolConfiguration{RequestBodyMode: modev3.ProcessingMode_BUFFERED, ResponseBodyMode: modev3.ProcessingMode_STREAMED},
	}
	if body != "" {
		m.Request = &pb.ProcessingRequest_RequestBody{RequestBody: &pb.HttpBody{Body: []byte(body), EndOfStream: end}}
		return m
	}
	m.Request = &pb.ProcessingRequest_RequestHeaders{RequestHeaders: &pb.HttpHeaders{EndOfStream: end, Headers: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
		{Key: ":path", Value: "/v1/models"}, {Key: name, RawValue: []byte(value)}, {Key: "empty"},
	}}}}
	return m
}

func TestDecodeReadsWhatEnvoyWrites(t *testing.T) {
	for _, tc := range []*pb.ProcessingRequest{
		message("authorization", "Bearer k", "", true),
		message("x", strings.Repeat("v", 70000), "", false),
		message("x", "\x00\xff", "", false),
		message("", "", "{}", true),
		message("", "", strings.Repeat("b", 300000), false),
		{Request: &pb.ProcessingRequest_ResponseHeaders{ResponseHeaders: &pb.HttpHeaders{}}},
		{},
	} {
		data, err := proto.Marshal(tc)
		if err != nil {
			t.Fatal(err)
		}
		sameAsProto(t, data)
	}
}

// sameAsProto decodes data by hand and by the library and compares.
func sameAsProto(t *testing.T, data []byte) {
	t.Helper()
	var want pb.ProcessingRequest
	var got request
	gotErr := got.decode(data)
	if proto.Unmarshal(data, &want) != nil || gotErr != nil {
		return // refused by one: gRPC ends the stream, and nothing was read
	}
	switch got.part {
	case partHeaders:
		h := want.GetRequestHeaders()
		if h == nil || h.EndOfStream != got.endOfStream {
			t.Fatalf("headers: got %+v, want %v", got, h)
		}
		var headers []pipeline.Header
		for _, v := range h.GetHeaders().GetHeaders() {
			value := v.Value
			if len(v.RawValue) > 0 {
				value = string(v.RawValue)
			}
			headers = append(headers, pipeline.Header{Name: v.Key, Value: value})
		}
		if diff := cmp.Diff(headers, got.headers); diff != "" {
			t.Fatalf("headers (-want +got):\n%s", diff)
		}
	case partBody:
		b := want.GetRequestBody()
		if b == nil || b.EndOfStream != got.endOfStream || !bytes.Equal(b.Body, got.body) {
			t.Fatalf("body: got %d bytes, end %v; want %v", len(got.body), got.endOfStream, b)
		}
	case partNone:
		if want.Request != nil {
			t.Fatalf("missed %v", want.Request)
		}
	}
	if m := want.GetProtocolConfig(); (m != nil) != got.modeKnown || got.modeKnown && m.RequestBodyMode != modev3.ProcessingMode_BodySendMode(got.mode) {
		t.Fatalf("mode %v %v, want %v", got.modeKnown, got.mode, m)
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range []*pb.ProcessingRequest{message("a", "b", "", true), message("", "", "body", false)} {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r request
		if err := r.decode(data); err == nil {
			sameAsProto(t, data)
		}
	})
}

// FuzzDecodeMessage feeds messages that are well-formed, with any content.
func FuzzDecodeMessage(f *testing.F) {
	f.Add("name", "value", "body", true)
	f.Fuzz(func(t *testing.T, name, value, body string, end bool) {
		for _, m := range []*pb.ProcessingRequest{message(name, value, body, end), message(name, value, "", end)} {
			if data, err := proto.Marshal(m); err == nil {
				sameAsProto(t, data)
			}
		}
	})
}

// Every length of every part crosses the sizes at which a length takes another byte.
func TestForwardOfAnySize(t *testing.T) {
	for _, n := range []int{0, 1, 60, 100, 127, 128, 129, 1000, 16383, 16384, 70000} {
		text := strings.Repeat("x", n)
		pool := &plan.Pool{Name: "p" + text}
		f := forward{
			set: []pipeline.Header{{Name: "a", Value: text}}, body: []byte(text), id: "id" + text,
			edits: []openai.Edit{{Off: n, Text: text + "!"}}, targets: []*plan.Pool{pool, pool}, newSize: 2*n + 1,
		}
		out, err := codec{}.Marshal(&f)
		if err != nil {
			t.Fatal(err)
		}
		data := out.Materialize()
		if size := f.size(); size != len(data) {
			t.Errorf("%d: size %d, message %d bytes", n, size, len(data))
		}
		var got pb.ProcessingResponse
		if err := proto.Unmarshal(data, &got); err != nil {
			t.Fatalf("%d: %v", n, err)
		}
		common := got.GetRequestBody().GetResponse()
		meta := got.GetDynamicMetadata().AsMap()
		groups := meta["weir.targets"].(map[string]any)["priority_groups"].([]any)
		switch {
		case string(common.GetBodyMutation().GetBody()) != text+text+"!":
			t.Errorf("%d: body", n)
		case string(common.GetHeaderMutation().GetSetHeaders()[0].GetHeader().GetRawValue()) != text:
			t.Errorf("%d: header", n)
		case meta["weir"].(map[string]any)["id"] != "id"+text, len(groups) != 2, groups[1].(map[string]any)["name"] != pool.Name:
			t.Errorf("%d: metadata %v", n, meta)
		}
		im := immediate{status: 429, headers: f.set, body: []byte(text)}
		got.Reset()
		if err := proto.Unmarshal(im.append(nil), &got); err != nil || string(got.GetImmediateResponse().GetBody()) != text {
			t.Errorf("%d: immediate response: %v", n, err)
		}
	}
}

func TestGoOn(t *testing.T) {
	var got pb.ProcessingResponse
	if err := proto.Unmarshal(goOn, &got); err != nil || got.GetRequestHeaders().GetResponse().GetStatus() != pb.CommonResponse_CONTINUE {
		t.Errorf("%v, %v", &got, err)
	}
}

// An edit that cannot be made must fail the message, not send a wrong length.
func TestForwardRefusesBadEdits(t *testing.T) {
	f := forward{body: []byte("abc"), edits: []openai.Edit{{Off: 9, Text: "x"}}, newSize: 4}
	if _, err := (codec{}).Marshal(&f); err == nil {
		t.Error("no error")
	}
}

func TestCodecLeavesOtherMessagesAlone(t *testing.T) {
	c := newCodec()
	out, err := c.Marshal(structpb.NewStringValue("x"))
	if err != nil {
		t.Fatal(err)
	}
	var v structpb.Value
	if err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(out.Materialize())}, &v); err != nil || v.GetStringValue() != "x" {
		t.Errorf("%v, %v", &v, err)
	}
}
