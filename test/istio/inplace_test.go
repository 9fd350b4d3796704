package istio

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"istio.io/istio/pilot/pkg/config/kube/crd"
)

// What istiod and the gateway's Envoy make of the parts that weir's way inside the
// gateway would need; docs/adr/0024-istio.md rests on it.

// ownChain is a cluster with an upstream chain, as weir's pools have.
const ownChain = `
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http_protocol_options: {}}
    http_filters:
    - name: weir.drop
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
        mutations: {request_mutations: [{append: {header: {key: x-own-chain, value: passed}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}]}
    - name: envoy.filters.http.upstream_codec
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec}
`

// patched is a gateway with a way to the backend, and an EnvoyFilter.
func patched(t *testing.T, more, patches string) (g *gateway, port int, received chan http.Header) {
	t.Helper()
	received = make(chan http.Header, 100)
	backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { received <- r.Header }))
	t.Cleanup(backend.Close)
	port = freePort(t)
	return newGateway(t, objects(port, backend.Listener.Addr().String()[len("127.0.0.1:"):], more, patches)), port, received
}

// objects are those of an operator whose gateway has nothing to do with weir so far.
func objects(port int, backend, more, patches string) string {
	patches = strings.ReplaceAll(patches, "%CHAIN%", indented(ownChain, 8))
	return strings.NewReplacer("%PORT%", fmt.Sprint(port), "%BACKEND%", backend).Replace(`
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: other, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: %PORT%, name: http, protocol: HTTP}, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: other, namespace: istio-system}
spec:
  hosts: ["*"]
  gateways: [other]
  http: [{name: other, route: [{destination: {host: other.internal, port: {number: %BACKEND%}}}]}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: other, namespace: istio-system}
spec:
  hosts: [other.internal]
  location: MESH_EXTERNAL
  ports: [{number: %BACKEND%, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 127.0.0.1}]` + more + `
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: weir, namespace: istio-system}
spec:
  workloadSelector: {labels: {istio: ingressgateway}}
  configPatches:` + patches)
}

func indented(s string, n int) string {
	return strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n"+strings.Repeat(" ", n))
}

const (
	addCluster = `
  - applyTo: CLUSTER
    match: {context: GATEWAY}
    patch:
      operation: ADD
      value:
        name: weir/pool
        type: STATIC
        connect_timeout: 1s
        load_assignment: {cluster_name: weir/pool, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %BACKEND%}}}}]}]}
        %CHAIN%`
	routeToCluster = `
  - applyTo: HTTP_ROUTE
    match: {context: GATEWAY}
    patch: {operation: MERGE, value: {route: {cluster: weir/pool}}}`
	mergeChain = `
  - applyTo: CLUSTER
    match: {context: GATEWAY, cluster: {service: other.internal}}
    patch:
      operation: MERGE
      value:
        %CHAIN%`
	routeByGroups = `
  - applyTo: HTTP_ROUTE
    match: {context: GATEWAY}
    patch:
      operation: MERGE
      value:
        route:
          inline_cluster_specifier_plugin:
            extension:
              name: envoy.router.cluster_specifier_plugin.priority_group
              typed_config: %GROUPS%`
	groupsByType   = `{"@type": type.googleapis.com/envoy.extensions.router.cluster_specifiers.priority_group.v3.PriorityGroupClusterSpecifier, priority_groups: [{name: none, clusters: [{cluster_name: weir/pool, weight: 1}]}]}`
	groupsByStruct = `{"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/envoy.extensions.router.cluster_specifiers.priority_group.v3.PriorityGroupClusterSpecifier, value: {priority_groups: [{name: none, clusters: [{cluster_name: weir/pool, weight: 1}]}]}}`
)

// A chain of its own passes for a cluster that EnvoyFilter adds, and for one of istiod's.
func TestOwnChain(t *testing.T) {
	for name, patches := range map[string]string{"added": addCluster + routeToCluster, "merged": mergeChain} {
		t.Run(name, func(t *testing.T) {
			g, port, received := patched(t, "", patches)
			g.waitAnswer(port, 200)
			if h := <-received; h.Get("x-own-chain") != "passed" {
				t.Errorf("the backend received %v", h)
			}
		})
	}
}

// A chain that is merged into a cluster of istiod's takes the place of what istiod
// says there about the protocol.
func TestMergedChainReplaces(t *testing.T) {
	const idle = `"idle_timeout": "840s"`
	for _, tc := range []struct {
		patches string
		kept    bool
	}{{addCluster, true}, {mergeChain, false}} {
		g, port, _ := patched(t, `
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: other, namespace: istio-system}
spec: {host: other.internal, trafficPolicy: {connectionPool: {http: {idleTimeout: 840s}}}}`, tc.patches)
		g.waitAnswer(port, 200)
		if kept := strings.Contains(g.ask("/config_dump?resource=dynamic_active_clusters"), idle); kept != tc.kept {
			t.Errorf("the idle timeout is there: %v, want %v", kept, tc.kept)
		}
	}
}

// istiod resolves the types of patches, and does not know this one.
func TestTargetsByType(t *testing.T) {
	_, _, err := crd.ParseInputs(objects(1, "2", "", addCluster+strings.Replace(routeByGroups, "%GROUPS%", groupsByType, 1)))
	if err == nil || !strings.Contains(err.Error(), "could not resolve Any message type") {
		t.Errorf("istiod says %v", err)
	}
}

// As a structure istiod passes it on unread, as it does what is spelt wrong. An Envoy
// that does not know it refuses the routes of the port, those of other hosts too.
func TestTargetsByStruct(t *testing.T) {
	misspelt := strings.Replace(groupsByStruct, "PriorityGroupCluster", "PriorityGruopCluster", 1)
	for _, tc := range []struct {
		name, groups string
		taken        bool
	}{{"as it is", groupsByStruct, knowsGroups(t)}, {"misspelt", misspelt, false}} {
		t.Run(tc.name, func(t *testing.T) {
			g, port, _ := patched(t, "", addCluster+strings.Replace(routeByGroups, "%GROUPS%", tc.groups, 1))
			if tc.taken {
				g.waitAnswer(port, 200)
				return
			}
			g.waitAnswer(port, 404)
			if stats := g.ask("/stats?filter=rds.*update_rejected"); !strings.Contains(stats, "update_rejected: 1") {
				t.Errorf("nothing was refused: %s", stats)
			}
			if !strings.Contains(g.log.String(), "priority_group") {
				t.Error("the gateway's log does not name what it refused")
			}
		})
	}
}

// knowsGroups tells whether the gateway's Envoy is 1.40 or later.
func knowsGroups(t *testing.T) bool {
	t.Helper()
	out, err := exec.Command(*ingress, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	var minor int
	if m := regexp.MustCompile(`/1\.(\d+)\.`).FindSubmatch(out); m != nil {
		minor, _ = strconv.Atoi(string(m[1]))
	}
	if minor == 0 {
		t.Fatalf("no version in %q", out)
	}
	return minor >= 40
}

// waitAnswer waits until the gateway answers with the status.
func (g *gateway) waitAnswer(port, status int) {
	g.t.Helper()
	eventually(g.t, 10*time.Second, func() string {
		r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		if err != nil {
			return err.Error()
		}
		r.Body.Close()
		if r.StatusCode != status {
			return fmt.Sprintf("%d, want %d", r.StatusCode, status)
		}
		return ""
	})
}
