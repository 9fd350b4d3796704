package ai

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// What weir, Envoy and the Wasm adapter tell each other about one request.
// Nothing here is secret: Envoy copies dynamic metadata into gRPC access logs.
const (
	// MetadataNamespace is the dynamic metadata that ext_proc sets and the
	// adapter and the access log read. Its values are strings.
	MetadataNamespace = "weir"
	// MetaID is the decision's id.
	MetaID = "id"
	// MetaRequest is what the adapter must know of the request, one compact
	// string, so that it costs one host call: see AdapterRequest.
	MetaRequest = "req"

	// PriorityNamespace is the dynamic metadata in which Envoy's priority_group
	// cluster specifier finds the ordered targets.
	PriorityNamespace = "weir.targets"

	// TargetMetadata is the namespace of a cluster's static metadata, and
	// TargetKey the key in it, under which the xDS server writes the target's
	// parameters, one JSON object: see AdapterTarget.
	TargetMetadata = "weir.target"
	TargetKey      = "params"

	// AttemptHeader carries to the adapter, in Envoy alone, all that it must know
	// of an attempt: one header is read at a fraction of the cost of three
	// properties. Envoy writes it by AttemptFormat before the adapter and removes
	// it behind it. Its fields are AttemptFields many, separated by tabs, which no
	// trusted field contains: the target's parameters, the request, the attempts
	// before, and the path, which is the client's to choose and therefore last.
	AttemptHeader = InternalPrefix + "attempt"
	AttemptFields = 4
	AttemptFormat = "%METADATA(CLUSTER:" + TargetMetadata + ":" + TargetKey + ")%\t" +
		"%DYNAMIC_METADATA(" + MetadataNamespace + ":" + MetaRequest + ")%\t" +
		"%FILTER_STATE(wasm." + StateAttempts + ":PLAIN)%\t%REQ(:PATH)%"

	// StateAttempts is the filter state (wasm.<name> in access logs) in which
	// the adapter notes each attempt: "pool:status;pool:status:rest". The status is
	// 0 until response headers arrive; rest is for how many milliseconds the backend
	// asks not to be called, if it does.
	StateAttempts = "weir_attempts"
	// StateUsage is the filter state in which the adapter notes what the
	// attempt that answers has used so far: see AdapterUsage.
	StateUsage = "weir_usage"

	// What Envoy's access log shows as response code details where the adapter
	// answered in the place of a target: it could not adapt the request, or the
	// request came past weir.
	DetailsAdapter = "weir_adapter"
	DetailsBypass  = "weir_bypass"
	// It ended a response in the middle, where the backend's had ended.
	DetailsInterrupted = "weir_stream_interrupted"
	// It cut a stream whose backend was silent for too long.
	DetailsIdle = "weir_stream_idle"

	// DecisionHeader tells the client the decision's id.
	DecisionHeader = "x-weir-decision"
	// InternalPrefix is that of headers that no client may send.
	InternalPrefix = "x-weir-"

	// AffinityHeader tells Envoy how a request begins: requests with the same value go
	// to the same endpoint of a pool that wants it.
	AffinityHeader = InternalPrefix + "affinity"

	// Envoy tells weir by these headers what it knows of the connection and of a
	// token. They begin with InternalPrefix: what a client sends under their names
	// is dropped before they are set, and no backend sees them.

	// PeerHeader is the address of who is connected to Envoy. Unlike the entry that
	// Envoy appends to x-forwarded-for, it is true on loopback too.
	PeerHeader = InternalPrefix + "peer"
	// PeerURIHeader is the URIs of the verified client certificate, joined by commas;
	// absent without one.
	PeerURIHeader = InternalPrefix + "peer-uri"
	// ClaimsHeader is the payload of the token that Envoy verified, as it stands in
	// the token (base64url).
	ClaimsHeader = InternalPrefix + "claims"
)

// ProbeID makes the id of a probe of a decision's id, a UUID: its version is 8 and
// not 7. What has such an id takes nothing from any limit and makes no event.
func ProbeID(id string) string {
	if len(id) <= versionDigit {
		return id
	}
	return id[:versionDigit] + probeVersion + id[versionDigit+1:]
}

// IsProbeID tells whether ProbeID made the id.
func IsProbeID(id string) bool {
	return len(id) > versionDigit && id[versionDigit:versionDigit+1] == probeVersion
}

const (
	versionDigit = 12 // of 32 hex digits (RFC 9562, 4.2)
	probeVersion = "8"
)

// NoTargetCluster is the Envoy cluster, without endpoints, of requests for which weir
// named no target: where a request ends that ext_proc did not see.
const NoTargetCluster = "weir/none"

// ClusterName is the Envoy cluster of a pool.
func ClusterName(pool string) string { return "pool/" + pool }

// AdapterRequest is what the adapter must know of a request.
type AdapterRequest struct {
	// Where the value of "model", quotes included, lies in the body that leaves
	// ext_proc: byte offset and length.
	ModelOffset, ModelLength int
	// The client asked for a stream.
	Stream bool
	// The client did not ask for usage in the stream: the usage event that weir
	// asked for is to be removed.
	StripUsage bool
}

// String writes the request as "offset length flags"; the flags are s (stream),
// u (strip usage), or - for none.
func (r AdapterRequest) String() string {
	flags := ""
	if r.Stream {
		flags += "s"
	}
	if r.StripUsage {
		flags += "u"
	}
	if flags == "" {
		flags = "-"
	}
	return strconv.Itoa(r.ModelOffset) + " " + strconv.Itoa(r.ModelLength) + " " + flags
}

// ParseAdapterRequest reads what String wrote.
func ParseAdapterRequest(s string) (AdapterRequest, error) {
	var r AdapterRequest
	offset, rest, ok1 := strings.Cut(s, " ")
	length, flags, ok2 := strings.Cut(rest, " ")
	var err1, err2 error
	r.ModelOffset, err1 = strconv.Atoi(offset)
	r.ModelLength, err2 = strconv.Atoi(length)
	if !ok1 || !ok2 || err1 != nil || err2 != nil || r.ModelOffset < 0 || r.ModelLength < 2 {
		return AdapterRequest{}, errors.New("adapter request: want \"offset length flags\"")
	}
	r.Stream = strings.Contains(flags, "s")
	r.StripUsage = strings.Contains(flags, "u")
	return r, nil
}

// AdapterTarget is what the adapter must know of a target. It travels as JSON in
// the static metadata of the target's cluster.
type AdapterTarget struct {
	Pool     string `json:"pool"`
	Profile  string `json:"profile"`   // adapter profile: openai, vllm, …
	Model    string `json:"model"`     // the real model's name
	BasePath string `json:"base_path"` // stands where /v1 stands in the client's path
	Host     string `json:"host"`      // :authority for the backend
	// TellsLimits says that answers of 200 have headers that tell what is left of the
	// backend's own limits.
	TellsLimits bool `json:"tells_limits,omitempty"`
	// StreamIdleMillis is for how many milliseconds the backend may send nothing of a
	// stream that has begun; 0: as long as Envoy allows.
	StreamIdleMillis int64 `json:"stream_idle_ms,omitempty"`
}

// AdapterUsage is what one attempt has used so far, as the adapter saw it.
type AdapterUsage struct {
	Usage
	Reported   bool   // the backend reported Usage
	Chunks     int64  // content events passed on
	TextBytes  int64  // bytes of content passed on, JSON escapes as they stand
	FirstToken int64  // microseconds since the epoch; 0 when no content arrived
	Finish     string // finish reason: letters and underscores only
	Done       bool   // the response ended as its dialect says ([DONE], or the whole JSON)
}

// AppendTo appends the usage as space-separated key=value pairs, zero values
// left out.
func (u *AdapterUsage) AppendTo(b []byte) []byte {
	num := func(key string, v int64) {
		if v != 0 {
			b = append(b, key...)
			b = strconv.AppendInt(b, v, 10)
			b = append(b, ' ')
		}
	}
	num("in=", u.Input)
	num("cached=", u.CachedInput)
	num("in.write=", u.CacheWrite)
	num("in.audio=", u.AudioInput)
	num("in.image=", u.ImageInput)
	num("out=", u.Output)
	num("reasoning=", u.Reasoning)
	num("out.audio=", u.AudioOutput)
	num("out.image=", u.ImageOutput)
	num("chunks=", u.Chunks)
	num("text=", u.TextBytes)
	num("first=", u.FirstToken)
	if u.Reported {
		b = append(b, "reported "...)
	}
	if u.Done {
		b = append(b, "done "...)
	}
	if u.Finish != "" {
		b = append(b, "finish="...)
		b = append(b, u.Finish...)
		b = append(b, ' ')
	}
	return b
}

// ParseAdapterUsage reads what AppendTo wrote. Unknown keys are passed over, so
// that weir and the filter may be of different versions; but a class of input that
// is not known ("in." and a name) counts as plain input, so that nothing that a
// newer filter tells apart is lost. Classes of output are parts of "out".
func ParseAdapterUsage(s string) (AdapterUsage, error) {
	var u AdapterUsage
	var other, others int64 // an unknown class of input, and all of them
	for word := range strings.FieldsSeq(s) {
		key, value, _ := strings.Cut(word, "=")
		var dst *int64
		switch key {
		case "in":
			dst = &u.Input
		case "cached":
			dst = &u.CachedInput
		case "in.write":
			dst = &u.CacheWrite
		case "in.audio":
			dst = &u.AudioInput
		case "in.image":
			dst = &u.ImageInput
		case "out":
			dst = &u.Output
		case "reasoning":
			dst = &u.Reasoning
		case "out.audio":
			dst = &u.AudioOutput
		case "out.image":
			dst = &u.ImageOutput
		case "chunks":
			dst = &u.Chunks
		case "text":
			dst = &u.TextBytes
		case "first":
			dst = &u.FirstToken
		case "reported":
			u.Reported = true
		case "done":
			u.Done = true
		case "finish":
			u.Finish = value
		default:
			if strings.HasPrefix(key, "in.") {
				dst = &other
			}
		}
		if dst == nil {
			continue
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 0 {
			return AdapterUsage{}, errors.New("adapter usage: " + key + " is not a count")
		}
		*dst = n
		if dst == &other {
			others += min(n, math.MaxInt64-others)
		}
	}
	u.Input += min(others, math.MaxInt64-u.Input)
	return u, nil
}
