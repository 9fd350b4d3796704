package usage

import (
	"bytes"
	"net"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	accesslogdata "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslog "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/ai"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

const lineOfFinished = `{"id":"00000000000000000000000000000001","rid":null,"start":"1772366400.000000","dur_us":2000000,"status":200,` +
	`"flags":"-","details":"via_upstream","bytes":900,"att":"local-vllm:200",` +
	`"use":"in=712 cached=100 out=64 chunks=64 text=300 first=1772366400183000 reported done finish=stop",` +
	`"n":1,"cluster":"pool/local-vllm","method":"POST","path":"/v1/chat/completions","later":{"a":[1]}}`

func TestDecodeLine(t *testing.T) {
	got, err := DecodeLine([]byte(lineOfFinished))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(finished(1), got); diff != "" {
		t.Error(diff)
	}
	// Numbers as strings, absent ones, and the id of the response header.
	got, err = DecodeLine([]byte(`{"rid":"00000000000000000000000000000001","start":"1772366400.5","dur_us":"-","status":"429","id":"-"}`))
	want := Entry{ID: idOf(1), Start: noon.Add(500 * time.Millisecond), Status: 429}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestDecodeLineRefuses(t *testing.T) {
	for _, line := range []string{
		``, `{`, `[]`, `"x"`, `{"start":"1772366400"} x`, `{}`, `{"start":null}`, `{"start":"x"}`, `{"start":"-1"}`, `{"start":"1.1234567"}`, `{"start":"1.-5"}`,
		`{"start":"1","id":"x"}`, `{"start":"1","id":"0000000000000000000000000000000g"}`, `{"start":"1","id":5}`,
		`{"start":"1","dur_us":-1}`, `{"start":"1","dur_us":1.5}`, `{"start":"1","dur_us":9223372036854775807}`, `{"start":"1","status":1000}`,
		`{"start":"1","bytes":true}`, `{"start":"1","bytes":{}}`, lineOfFinished[:len(lineOfFinished)-1],
	} {
		if e, err := DecodeLine([]byte(line)); err == nil {
			t.Errorf("%s: %+v", line, e)
		}
	}
}

// What reached a pool without an id of weir's is a bypass, whatever id a backend
// claims; weir's own refusal on such a route reached none.
func TestBypassEntries(t *testing.T) {
	for name, tc := range map[string]struct {
		line   string
		bypass bool
	}{
		"passed":                 {`{"start":"1","status":200,"n":1,"cluster":"pool/a"}`, true},
		"a backend claims an id": {`{"start":"1","status":200,"n":1,"cluster":"pool/a","rid":"00000000000000000000000000000001"}`, true},
		"an id that is none":     {`{"start":"1","status":200,"n":1,"cluster":"pool/a","rid":"x"}`, true},
		"only the filter noted":  {`{"start":"1","status":200,"n":2,"att":"a:503;a:200"}`, true},
		"decided":                {`{"start":"1","status":200,"n":1,"cluster":"pool/a","id":"00000000000000000000000000000001"}`, false},
		"weir refused":           {`{"start":"1","status":401,"n":0,"cluster":"pool/a","rid":"00000000000000000000000000000001"}`, false},
		"Envoy refused":          {`{"start":"1","status":413,"cluster":"pool/a"}`, false},
		"a cluster of their own": {`{"start":"1","status":200,"n":1,"cluster":"website"}`, false},
		"past weir, to nobody":   {`{"start":"1","status":503,"n":1,"cluster":"weir/none","details":"no_healthy_upstream"}`, true},
		"weir is away":           {`{"start":"1","status":503,"cluster":"weir/none","details":"ext_proc_error_gRPC_error_14"}`, false},
	} {
		e, err := DecodeLine([]byte(tc.line))
		if err != nil || e.Bypass != tc.bypass || tc.bypass && (e.ID != nil || e.Digest == ID{}) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
	nobody := alsOfFinished(t)
	nobody.CommonProperties.Metadata, nobody.CommonProperties.UpstreamCluster = nil, ""
	nobody.CommonProperties.FilterStateObjects = nil
	nobody.Response.ResponseCodeDetails = "no_healthy_upstream"
	if e, err := DecodeALS(nobody); err != nil || !e.Bypass {
		t.Errorf("gRPC, to nobody: %+v, %v", e, err)
	}
	als := alsOfFinished(t)
	als.CommonProperties.Metadata = nil
	als.Response.ResponseHeaders = map[string]string{"x-weir-decision": testID(1)}
	if e, err := DecodeALS(als); err != nil || !e.Bypass || e.ID != nil || e.Digest == (ID{}) {
		t.Errorf("gRPC: %+v, %v", e, err)
	}
}

// The entry of a probe is nobody's request; what went to a pool is one, whatever id
// it has.
func TestProbesMakeNoEvents(t *testing.T) {
	w := newWorld(t)
	id := func(n int) string { return ai.ProbeID(testID(n)) }
	for _, line := range []string{
		`{"start":"1772366400","status":401,"n":0,"rid":"` + id(1) + `","details":"weir"}`,
		`{"start":"1772366400","status":200,"rid":"` + id(2) + `","details":"weir"}`,
		`{"start":"1772366400","status":200,"n":1,"cluster":"pool/a","id":"` + id(3) + `"}`,
		`{"start":"1772366400","status":200,"n":1,"cluster":"pool/a","rid":"` + id(4) + `"}`,
	} {
		e, err := DecodeLine([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Entry(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	events := w.events()
	if len(events) != 2 || w.metric("weir_usage_dropped_total", dropProbe) != 2 || w.metric("weir_usage_orphans_total", "") != 1 {
		t.Errorf("%d events, %v entries passed over, %v orphans", len(events), w.metric("weir_usage_dropped_total", dropProbe), w.metric("weir_usage_orphans_total", ""))
	}
}

func TestDigestTellsEntriesApart(t *testing.T) {
	line := []byte(`{"start":"1"}`)
	if digest(line, "a") != digest(bytes.Clone(line), "a") || digest(line, "a") == digest(line, "b") || digest(line, "a") == digest([]byte(`{"start":"2"}`), "a") {
		t.Error("digest")
	}
}

// alsOfFinished is the same entry as Envoy's gRPC access log sends it.
func alsOfFinished(t testing.TB) *accesslogdata.HTTPAccessLogEntry {
	state := func(s string) *anypb.Any {
		a, err := anypb.New(wrapperspb.Bytes([]byte(s)))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	meta, err := structpb.NewStruct(map[string]any{"id": testID(1), "req": "9 7 s"})
	if err != nil {
		t.Fatal(err)
	}
	return &accesslogdata.HTTPAccessLogEntry{
		CommonProperties: &accesslogdata.AccessLogCommon{
			StartTime:                  timestamppb.New(noon),
			TimeToLastDownstreamTxByte: durationpb.New(2 * time.Second),
			Metadata:                   &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"weir": meta}},
			FilterStateObjects: map[string]*anypb.Any{
				"wasm.weir_attempts": state("local-vllm:200"),
				"wasm.weir_usage":    state("in=712 cached=100 out=64 chunks=64 text=300 first=1772366400183000 reported done finish=stop"),
			},
			UpstreamCluster: "pool/local-vllm", UpstreamRequestAttemptCount: 1,
			AccessLogType: accesslogdata.AccessLogType_DownstreamEnd,
		},
		Response: &accesslogdata.HTTPResponseProperties{
			ResponseCode: wrapperspb.UInt32(200), ResponseBodyBytes: 900, ResponseCodeDetails: "via_upstream",
		},
	}
}

func TestDecodeALS(t *testing.T) {
	got, err := DecodeALS(alsOfFinished(t))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(finished(1), got); diff != "" {
		t.Error(diff)
	}
	gone := alsOfFinished(t)
	gone.CommonProperties.ResponseFlags = &accesslogdata.ResponseFlags{DownstreamConnectionTermination: true, UpstreamRetryLimitExceeded: true}
	gone.CommonProperties.AccessLogType = accesslogdata.AccessLogType_DownstreamPeriodic
	got, err = DecodeALS(gone)
	if err != nil || got.Flags != "DC,URX" || !got.clientGone() || !got.Periodic {
		t.Errorf("%+v, %v", got, err)
	}
	for name, bad := range map[string]*accesslogdata.HTTPAccessLogEntry{
		"empty":     {},
		"bad start": {CommonProperties: &accesslogdata.AccessLogCommon{StartTime: &timestamppb.Timestamp{Nanos: -1}}},
		"bad id": {CommonProperties: &accesslogdata.AccessLogCommon{StartTime: timestamppb.New(noon)},
			Response: &accesslogdata.HTTPResponseProperties{ResponseHeaders: map[string]string{"x-weir-decision": "x"}}},
	} {
		if _, err := DecodeALS(bad); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Entries that arrive over gRPC close their decisions; those that are no
// entries do not harm the others.
func TestALSOverGRPC(t *testing.T) {
	w := newWorld(t)
	w.decide(admitted(1))
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	w.RegisterALS(srv)
	go srv.Serve(lis)
	defer srv.Stop()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := accesslog.NewAccessLogServiceClient(conn).StreamAccessLogs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	entries := []*accesslogdata.HTTPAccessLogEntry{{}, alsOfFinished(t), alsOfFinished(t)}
	if err := stream.Send(&accesslog.StreamAccessLogsMessage{LogEntries: &accesslog.StreamAccessLogsMessage_HttpLogs{
		HttpLogs: &accesslog.StreamAccessLogsMessage_HTTPAccessLogEntries{LogEntry: entries}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.CloseAndRecv(); err != nil {
		t.Fatal(err)
	}
	if e := w.one(); e.Outcome != OutcomeCompleted || e.CostNanousd == 0 {
		t.Errorf("%v", e)
	}
	if n := w.metric("weir_usage_dropped_total", dropGarbled); n != 1 {
		t.Errorf("%v garbled", n)
	}
}

// check makes an event of any entry, as the store would take it.
func check(t *testing.T, e Entry) {
	for _, ev := range []*usagev1.Event{closed(admitted(1), &e), closed(billing(1), &e), orphan(e.Digest, &e)} {
		if _, err := proto.Marshal(ev); err != nil {
			t.Fatal(err)
		}
		checkSums(t, ev)
		if ev.CostNanousd < 0 || ev.DurationUs < 0 || ev.FirstTokenUs < 0 {
			t.Fatalf("%v", ev)
		}
		Line(ev)
	}
}

func FuzzDecodeLine(f *testing.F) {
	f.Add([]byte(lineOfFinished))
	f.Add([]byte(`{"start":"1.5","use":"in=9223372036854775807 out=9223372036854775807 reported","att":"a:1;b:2","flags":"DC"}`))
	f.Add([]byte(`{"start":"1.5","use":"in=1 in.audio=9223372036854775807 out=5 out.audio=9223372036854775807 reported","att":"provider:0;local-vllm:0;provider:200","flags":"UC"}`))
	f.Add([]byte("{\"start\":\"1\",\"details\":\"\xff\xfe\"}"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if e, err := DecodeLine(line); err == nil {
			check(t, e)
		}
	})
}

func FuzzDecodeALS(f *testing.F) {
	b, err := proto.Marshal(alsOfFinished(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var raw accesslogdata.HTTPAccessLogEntry
		if proto.Unmarshal(b, &raw) != nil {
			return
		}
		if e, err := DecodeALS(&raw); err == nil {
			check(t, e)
		}
	})
}

// An entry for another replica's decision is handed on as it came, and taken there
// as if Envoy had sent it there.
func TestEntriesAreHandedOn(t *testing.T) {
	t.Parallel()
	raw := &accesslogdata.HTTPAccessLogEntry{
		CommonProperties: &accesslogdata.AccessLogCommon{
			StartTime: timestamppb.New(time.Unix(1, 0)),
			Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{ai.MetadataNamespace: {Fields: map[string]*structpb.Value{
				ai.MetaID: structpb.NewStringValue("0123456789ab7000800000000000000a"),
			}}}},
		},
		Response: &accesslogdata.HTTPResponseProperties{ResponseCode: wrapperspb.UInt32(200)},
	}
	e, err := DecodeALS(raw)
	if err != nil {
		t.Fatal(err)
	}
	var sent [][]byte
	theirs := true
	r := &Recorder{opt: Options{HandOn: func(id ID, entry func() ([]byte, error)) bool {
		b, err := entry()
		if id != *e.ID || err != nil {
			t.Errorf("handed on %s: %v", id, err)
		}
		if theirs {
			sent = append(sent, b)
		}
		return theirs
	}}}
	if !r.elsewhere(&e, raw) || len(sent) != 1 {
		t.Fatal("not handed on")
	}
	got, err := decodeHanded(sent[0])
	if diff := cmp.Diff(e, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	theirs = false
	if r.elsewhere(&e, raw) {
		t.Error("an entry of its own is handed on")
	}
	if e.ID = nil; r.elsewhere(&e, raw) {
		t.Error("an entry that weir was not asked about is handed on")
	}
}

func FuzzHanded(f *testing.F) {
	raw, err := proto.Marshal(&accesslogdata.HTTPAccessLogEntry{CommonProperties: &accesslogdata.AccessLogCommon{StartTime: timestamppb.New(time.Unix(1, 0))}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte{0x0a, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := decodeHanded(b); err == nil && (e.Status < 0 || e.Status > 999 || len(e.Usage) > maxState) {
			t.Errorf("%+v", e)
		}
	})
}
