package build

import (
	"encoding/json"
	"fmt"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// OwnReply is the response code details of weir's own answers: what ext_proc
// puts into ImmediateResponse.details, so that Envoy leaves them as they are.
const OwnReply = "weir"

// localReply is one kind of answer that Envoy makes itself.
type localReply struct {
	when    string // CEL over Envoy's attributes
	status  uint32 // 0 leaves Envoy's
	kind    string // error type
	code    string
	message string
}

// replies are tried in order; the last one takes everything.
var replies = []localReply{
	{
		when: `response.code_details.startsWith("ext_proc")`, status: 503, kind: "server_error", code: "service_unavailable",
		message: "The gateway cannot decide about requests at the moment. Try again shortly.",
	},
	{
		when: "response.code == 413", kind: "invalid_request_error", code: "request_too_large",
		message: "The request body is larger than this gateway accepts.",
	},
	{
		when: "response.code == 431", kind: "invalid_request_error", code: "request_too_large",
		message: "The request headers are larger than this gateway accepts.",
	},
	{
		// weir adds a few headers; with them there are too many.
		when: `response.code_details == "header_mutation_result_exceeds_limit"`, status: 431, kind: "invalid_request_error", code: "request_too_large",
		message: "The request has too many headers.",
	},
	{
		when: "response.code == 404", kind: "invalid_request_error", code: "unknown_url",
		message: "There is nothing at this URL.",
	},
	{
		when: "response.code == 408", kind: "invalid_request_error", code: "request_timeout",
		message: "The request did not arrive in time.",
	},
	{
		when: "response.code == 504", kind: "server_error", code: "upstream_timeout",
		message: "The model did not answer in time.",
	},
	{
		when: "response.code == 502 || response.code == 503", kind: "server_error", code: "service_unavailable",
		message: "No backend of this model could be reached. Try again shortly.",
	},
	{
		when: "response.code < 500", kind: "invalid_request_error", code: "bad_request",
		message: "The request is malformed.",
	},
	{
		when: "true", kind: "server_error", code: "internal_error",
		message: "The gateway failed to handle the request.",
	},
}

// localReplies gives Envoy's own answers the shape of OpenAI's errors. weir's
// are matched first and left alone; a backend's never come here.
func localReplies() *hcmv3.LocalReplyConfig {
	c := &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{
		{Filter: when(fmt.Sprintf("response.code_details == %q", OwnReply))},
	}}
	for _, r := range replies {
		m := &hcmv3.ResponseMapper{Filter: when(r.when), BodyFormatOverride: r.body()}
		if r.status != 0 {
			m.StatusCode = wrapperspb.UInt32(r.status)
		}
		c.Mappers = append(c.Mappers, m)
	}
	return c
}

func (r localReply) body() *corev3.SubstitutionFormatString {
	quote := func(s string) string {
		b, _ := json.Marshal(s) // a string always marshals
		return strings.ReplaceAll(string(b), "%", "%%")
	}
	return &corev3.SubstitutionFormatString{
		ContentType: "application/json",
		Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{
			Specifier: &corev3.DataSource_InlineString{InlineString: fmt.Sprintf(
				`{"error":{"message":%s,"type":%s,"param":null,"code":%s}}`,
				quote(r.message), quote(r.kind), quote(r.code))},
		}},
	}
}

func when(expression string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{
		ExtensionFilter: &accesslogv3.ExtensionFilter{
			Name:       "envoy.access_loggers.extension_filters.cel",
			ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{TypedConfig: pack(&celv3.ExpressionFilter{Expression: expression})},
		},
	}}
}
