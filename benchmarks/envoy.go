package main

import (
	"bytes"
	"text/template"
)

// envoyConfig is the data of an Envoy of ours.
type envoyConfig struct {
	Listen  string // port on loopback
	Backend string // port on loopback
	ExtProc string // unix socket; "" for none
}

// envoyTemplate is a plain Envoy: one listener, one route, one cluster. The
// limits that would show (buffers, circuit breakers) are out of the way.
var envoyTemplate = template.Must(template.New("envoy").Parse(`static_resources:
  listeners:
  - name: main
    address: {socket_address: {address: 127.0.0.1, port_value: {{.Listen}}}}
    per_connection_buffer_limit_bytes: 1048576
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: main
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: /}
                request_body_buffer_limit: 33554432
                route: {cluster: backend, timeout: 600s}
          http_filters:
{{- if .ExtProc}}
          - name: envoy.filters.http.ext_proc
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor
              grpc_service: {envoy_grpc: {cluster_name: ext_proc}}
              message_timeout: 10s
              processing_mode:
                request_header_mode: SEND
                request_body_mode: BUFFERED
                request_trailer_mode: SKIP
                response_header_mode: SKIP
                response_body_mode: NONE
                response_trailer_mode: SKIP
{{- end}}
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: backend
    type: STATIC
    connect_timeout: 2s
    circuit_breakers: {thresholds: [{max_connections: 16777216, max_pending_requests: 16777216, max_requests: 16777216}]}
    load_assignment:
      cluster_name: backend
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: {{.Backend}}}}}}]}]
{{- if .ExtProc}}
  - name: ext_proc
    type: STATIC
    connect_timeout: 2s
    circuit_breakers: {thresholds: [{max_connections: 16777216, max_pending_requests: 16777216, max_requests: 16777216}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config:
          http2_protocol_options: {initial_stream_window_size: 16777216, initial_connection_window_size: 67108864}
    load_assignment:
      cluster_name: ext_proc
      endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: {{.ExtProc}}}}}}]}]
{{- end}}
`))

func (c envoyConfig) render() (string, error) {
	var b bytes.Buffer
	err := envoyTemplate.Execute(&b, c)
	return b.String(), err
}

// weirTemplate is a configuration with every stage at work: a keyed key, roles,
// a rule, limits in requests and in tokens, a fallback target, a credential that
// Envoy injects. Its two targets have two vocabularies.
var weirTemplate = template.Must(template.New("weir").Parse(`listeners:
- {name: main, address: "127.0.0.1:0"}
admin: {address: "127.0.0.1:0"}
pools:
- name: first
  adapter: vllm
  placement: private
  endpoints: [{url: "http://127.0.0.1:{{.Backend}}/v1"}]
  model: Qwen/Qwen3-32B
  price: {input: 0.27, output: 1.1}
  credential: {secret: {env: {{.PoolKeyEnv}}}}
- name: second
  adapter: openai
  placement: public
  endpoints: [{url: "http://127.0.0.1:{{.Backend}}/v1"}]
  model: gpt-4o-mini
  price: {input: 1, output: 4}
  credential: {secret: {env: {{.PoolKeyEnv}}}}
models:
- name: {{.Model}}
  rules:
  - {name: nightly, when: 'team == "nightly" && kind == "chat"', targets: [{pool: second}]}
  targets: [{pool: first}, {pool: second}]
teams:
- {name: trading, roles: [caller]}
- {name: nightly, roles: [caller]}
applications:
- {name: desk, team: trading}
roles:
- {name: caller, models: ["*"], egress: true}
keys:
- {name: desk, secret: {env: {{.KeyEnv}}}, application: desk}
limits:
- {name: requests-by-key, unit: requests, amount: 1000000000000, window: 60s, per: [key]}
- {name: tokens-by-team, unit: tokens, amount: 1000000000000, window: 60s, per: [team, model]}
`))

// weirConfig is the data of weir's configuration. Secrets come by environment.
type weirConfig struct {
	Backend, Model     string
	KeyEnv, PoolKeyEnv string
}

func (c weirConfig) render() (string, error) {
	var b bytes.Buffer
	err := weirTemplate.Execute(&b, c)
	return b.String(), err
}
