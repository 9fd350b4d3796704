package build_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/weirproxy/weir/envoy"
	"github.com/weirproxy/weir/wasm"
	"github.com/weirproxy/weir/xds/build"
)

// TestEnvoyAccepts gives what each golden produces to the real Envoy's validate
// mode, as a static bootstrap.
func TestEnvoyAccepts(t *testing.T) {
	binary, err := envoy.Locate(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	adapter, err := wasm.Adapter()
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range cases(t) {
		t.Run(name, func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			res, dir, err := buildCase(t, archive, false)
			if err != nil {
				return // the case is about the error
			}
			if err := os.WriteFile(filepath.Join(dir, "adapter.wasm"), adapter, 0o600); err != nil {
				t.Fatal(err)
			}
			config := filepath.Join(dir, "bootstrap.json")
			if err := os.WriteFile(config, staticBootstrap(t, res), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), binary.Path, "--mode", "validate", "--disable-hot-restart",
				"--concurrency", "1", "-l", "error", "-c", config).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
}

// staticBootstrap stands in for ADS: routes go into their listeners, endpoints
// into their clusters, secrets beside them under the same names.
func staticBootstrap(t *testing.T, r *build.Resources) []byte {
	t.Helper()
	routes := map[string]any{}
	for _, rc := range generic(t, r.Routes) {
		routes[rc["name"].(string)] = rc
	}
	endpoints := map[string]any{}
	for _, e := range generic(t, r.Endpoints) {
		endpoints[e["cluster_name"].(string)] = e
	}
	extensions := map[string]any{}
	for _, e := range generic(t, r.Extensions) {
		extensions[e["name"].(string)] = e["typed_config"]
	}
	listeners, clusters := generic(t, r.Listeners), generic(t, r.Clusters)
	for _, l := range listeners {
		inline(l, routes, extensions)
	}
	for _, c := range clusters {
		inline(c, routes, extensions)
		if c["type"] == "EDS" {
			service := c["eds_cluster_config"].(map[string]any)["service_name"].(string)
			delete(c, "eds_cluster_config")
			c["type"], c["load_assignment"] = "STATIC", endpoints[service]
		}
	}
	b, err := json.Marshal(map[string]any{"static_resources": map[string]any{
		"listeners": listeners, "clusters": clusters, "secrets": generic(t, r.Secrets),
	}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// inline replaces references to ADS: of routes by the routes, of filters by their
// configurations, of secrets by the name alone, which is that of a static one.
func inline(v any, routes, extensions map[string]any) {
	switch v := v.(type) {
	case map[string]any:
		if rds, ok := v["rds"].(map[string]any); ok {
			delete(v, "rds")
			v["route_config"] = routes[fmt.Sprint(rds["route_config_name"])]
		}
		if _, ok := v["config_discovery"]; ok {
			delete(v, "config_discovery")
			v["typed_config"] = extensions[v["name"].(string)]
		}
		delete(v, "sds_config")
		for _, inner := range v {
			inline(inner, routes, extensions)
		}
	case []any:
		for _, inner := range v {
			inline(inner, routes, extensions)
		}
	}
}

func generic[M proto.Message](t *testing.T, list []M) []map[string]any {
	t.Helper()
	var out []map[string]any
	for _, m := range list {
		raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var v map[string]any
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}
