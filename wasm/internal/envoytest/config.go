package envoytest

import (
	"net"
	"strconv"
	"testing"

	"github.com/weirproxy/weir/internal/ai"
)

// Config is an Envoy with one listener and one route over ordered targets.
type Config struct {
	// Wasm is the filter's file, RootID its root. Without a file Envoy has no
	// filter: what is measured is compared with that.
	Wasm, RootID string
	// Upstream runs the filter in each target's upstream chain, as weir does;
	// otherwise it runs in the listener's.
	Upstream bool
	// PluginConfig is the plugin's configuration.
	PluginConfig string
	// Environment is that of the filter's VM.
	Environment map[string]string
	Targets     []Target
	// Metadata is dynamic metadata set before all else, by namespace.
	Metadata map[string]map[string]string
	// PerTryTimeout as "0.5s"; empty is none.
	PerTryTimeout string
	// BodyLimit is how large a body Envoy buffers, in bytes; 0 is its default.
	BodyLimit int
}

// Target is a cluster of one endpoint.
type Target struct {
	Name     string
	Addr     string // host:port
	Metadata map[string]map[string]string
	HTTP2    bool
}

type object = map[string]any
type list = []any

const extensions = "type.googleapis.com/envoy.extensions."

func typed(name, typ string, fields object) object {
	cfg := object{"@type": extensions + typ}
	for k, v := range fields {
		cfg[k] = v
	}
	return object{"name": name, "typed_config": cfg}
}

func (c Config) bootstrap(accessLog string) object {
	clusters := list{}
	for _, t := range c.Targets {
		clusters = append(clusters, c.cluster(t))
	}
	return object{
		"admin":            object{"address": address("127.0.0.1:0")},
		"static_resources": object{"listeners": list{c.listener(accessLog)}, "clusters": clusters},
	}
}

// filter is the Wasm filter as weir configures it.
func (c Config) filter() object {
	config := object{
		"name": c.RootID, "root_id": c.RootID,
		"failure_policy":                  "FAIL_RELOAD",
		"reload_config":                   object{"backoff": object{"base_interval": "0.1s"}},
		"allow_on_headers_stop_iteration": true,
		"vm_config": object{
			"vm_id": c.RootID, "runtime": "envoy.wasm.runtime.v8",
			"code":                  object{"local": object{"filename": c.Wasm}},
			"environment_variables": object{"key_values": c.Environment},
		},
	}
	if c.PluginConfig != "" {
		config["configuration"] = object{"@type": "type.googleapis.com/google.protobuf.StringValue", "value": c.PluginConfig}
	}
	return typed(c.RootID, "filters.http.wasm.v3.Wasm", object{"config": config})
}

func (c Config) listener(accessLog string) object {
	filters := list{}
	if !c.Upstream && c.Wasm != "" {
		filters = append(filters, c.filter())
	}
	if len(c.Metadata) > 0 {
		set := list{}
		for ns, values := range c.Metadata {
			set = append(set, object{"metadata_namespace": ns, "value": values})
		}
		metadata := typed("set_metadata", "filters.http.set_metadata.v3.Config", object{"metadata": set})
		filters = append(list{metadata}, filters...)
	}
	filters = append(filters, typed("router", "filters.http.router.v3.Router", nil))
	manager := object{
		"stat_prefix": "test", "http_filters": filters,
		"access_log":   list{accessLogger(accessLog)},
		"route_config": object{"virtual_hosts": list{object{"name": "all", "domains": list{"*"}, "routes": list{c.route()}}}},
	}
	l := object{
		"name": "test", "address": address("127.0.0.1:0"),
		"filter_chains": list{object{"filters": list{
			typed("http", "filters.network.http_connection_manager.v3.HttpConnectionManager", manager)}}},
	}
	if c.BodyLimit > 0 {
		l["per_connection_buffer_limit_bytes"] = c.BodyLimit
	}
	return l
}

func (c Config) route() object {
	groups := list{}
	for _, t := range c.Targets {
		groups = append(groups, object{"name": t.Name, "clusters": list{object{"cluster_name": t.Name, "weight": 1}}})
	}
	retry := object{
		"retry_on": "5xx,reset,connect-failure", "num_retries": max(1, len(c.Targets)-1),
		"refresh_cluster_on_retry": true,
		"retry_back_off":           object{"base_interval": "0.001s", "max_interval": "0.002s"},
	}
	if c.PerTryTimeout != "" {
		retry["per_try_timeout"] = c.PerTryTimeout
	}
	route := object{
		"match": object{"prefix": "/"},
		"route": object{
			"timeout": "0s", "retry_policy": retry,
			"inline_cluster_specifier_plugin": object{"extension": typed("targets",
				"router.cluster_specifiers.priority_group.v3.PriorityGroupClusterSpecifier", object{"priority_groups": groups})},
		},
	}
	if c.BodyLimit > 0 {
		route["request_body_buffer_limit"] = c.BodyLimit
	}
	return route
}

func (c Config) cluster(t Target) object {
	protocol := object{"http_protocol_options": object{}}
	if t.HTTP2 {
		protocol = object{"http2_protocol_options": object{}}
	}
	options := object{"@type": extensions + "upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": protocol}
	if c.Upstream && c.Wasm != "" {
		options["http_filters"] = list{tell(), c.filter(), forget(), typed("codec", "filters.http.upstream_codec.v3.UpstreamCodec", nil)}
	}
	return object{
		"name": t.Name, "type": "STATIC", "connect_timeout": "2s",
		"metadata": object{"filter_metadata": t.Metadata},
		"load_assignment": object{"cluster_name": t.Name, "endpoints": list{object{"lb_endpoints": list{
			object{"endpoint": object{"address": address(t.Addr)}}}}}},
		"typed_extension_protocol_options": object{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
	}
}

// tell writes for the adapter what it must know, forget removes it, as weir's
// configuration does.
func tell() object {
	return mutation(object{"append": object{
		"header":        object{"key": ai.AttemptHeader, "value": ai.AttemptFormat},
		"append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
	}})
}

func forget() object { return mutation(object{"remove": ai.AttemptHeader}) }

func mutation(m object) object {
	return typed("mutation", "filters.http.header_mutation.v3.HeaderMutation",
		object{"mutations": object{"request_mutations": list{m}}})
}

func address(hostport string) object {
	host, portText, err := net.SplitHostPort(hostport)
	port, err2 := strconv.Atoi(portText)
	if err != nil || err2 != nil {
		panic("envoytest: not host:port: " + hostport)
	}
	return object{"socket_address": object{"address": host, "port_value": port}}
}

func accessLogger(path string) object {
	return typed("file", "access_loggers.file.v3.FileAccessLog", object{
		"path": path,
		"log_format": object{"json_format": object{
			"status": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%", "details": "%RESPONSE_CODE_DETAILS%",
			"att": "%FILTER_STATE(wasm.weir_attempts:PLAIN)%", "use": "%FILTER_STATE(wasm.weir_usage:PLAIN)%",
			"n": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "cluster": "%UPSTREAM_CLUSTER_RAW%",
		}},
	})
}

// RefusedAddr is an address of this machine at which nobody listens.
func RefusedAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
