package istio

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pkg/config/analysis/analyzers"
	"istio.io/istio/pkg/config/analysis/local"
	schema "istio.io/istio/pkg/config/crd"
	"istio.io/istio/pkg/config/resource"
)

// goldens are the objects that weir renders, as its own tests hold them.
func goldens(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../../internal/cli/testdata/istio/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]string{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, out, rendered := strings.Cut(string(b), "-- want/stdout --\n")
		if !rendered {
			continue // a case of faults
		}
		out, _, _ = strings.Cut(out, "-- want/exit --\n")
		list[strings.TrimSuffix(filepath.Base(file), ".txtar")] = out
	}
	if len(list) < 8 {
		t.Fatalf("only %d goldens in %v", len(list), files)
	}
	return list
}

// cluster is what the objects refer to: the gateways, their secrets, and the service of
// weir's Envoy.
const cluster = `
apiVersion: v1
kind: Namespace
metadata: {name: istio-system, labels: {istio-injection: disabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: istio-ingress, labels: {istio-injection: disabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: weir, labels: {istio-injection: disabled}}
---
apiVersion: v1
kind: Pod
metadata: {name: gateway, namespace: istio-system, labels: {istio: ingressgateway}}
spec: {containers: [{name: istio-proxy, image: proxyv2}]}
---
apiVersion: v1
kind: Service
metadata: {name: gateway, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  ports: [{name: http, port: 80, targetPort: 8080, protocol: TCP}, {name: https, port: 443, targetPort: 8443, protocol: TCP}]
---
apiVersion: v1
kind: Pod
metadata: {name: edge, namespace: istio-ingress, labels: {istio: ingress, tier: edge}}
spec: {containers: [{name: istio-proxy, image: proxyv2}]}
---
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: istio-ingress}
spec: {selector: {istio: ingress}, ports: [{name: https, port: 8443, targetPort: 8443, protocol: TCP}]}
---
apiVersion: v1
kind: Service
metadata: {name: weir-envoy, namespace: weir}
spec: {selector: {app: weir-envoy}, ports: [{name: http, port: 10080, protocol: TCP}]}
`

// secretsOf adds what is needed for the gateways: a certificate that is valid.
func secretsOf(t *testing.T) string {
	t.Helper()
	a := newAuthority(t)
	cert, key := a.issue(gatewayHost)
	encoded := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	var all strings.Builder
	for _, namespace := range []string{"istio-system", "istio-ingress"} {
		fmt.Fprintf(&all, "---\napiVersion: v1\nkind: Secret\nmetadata: {name: ai-cert, namespace: %s}\ndata: {tls.crt: %s, tls.key: %s, ca.crt: %s}\n",
			namespace, encoded(cert), encoded(key), encoded(a.pem))
	}
	return all.String()
}

// analyze runs what istioctl analyze runs, and gives its findings.
func analyze(t *testing.T, objects string) (findings []string, err error) {
	t.Helper()
	sa := local.NewIstiodAnalyzer(analyzers.AllCombined(), "", resource.Namespace("istio-system"), nil)
	err = sa.AddTestReaderKubeSource([]local.ReaderSource{
		{Name: "cluster.yaml", Reader: strings.NewReader(cluster + secretsOf(t))},
		{Name: "rendered.yaml", Reader: strings.NewReader(objects)},
	})
	if err != nil {
		return nil, err
	}
	if err := sa.AddDefaultResources(); err != nil {
		t.Fatal(err)
	}
	cancel := make(chan struct{})
	defer close(cancel)
	result, err := sa.Analyze(cancel)
	if err != nil {
		t.Fatal(err)
	}
	if len(result.ExecutedAnalyzers) < 20 {
		t.Fatalf("only %d analyzers ran", len(result.ExecutedAnalyzers))
	}
	for _, m := range result.Messages {
		findings = append(findings, m.String())
	}
	return findings, nil
}

// definitions are Istio's custom resources, by which Kubernetes judges objects.
func definitions(t *testing.T) *schema.Validator {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "istio.io/istio").Output()
	if err != nil {
		t.Fatal(err)
	}
	v, err := schema.NewValidatorFromFiles(filepath.Join(strings.TrimSpace(string(dir)), "manifests/charts/base/files/crd-all.gen.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// What weir renders passes Kubernetes' and istiod's validation, and istioctl's analyzers find nothing
// in it.
func TestNothingIsFound(t *testing.T) {
	kubernetes := definitions(t)
	for name, objects := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			configs, unknown, err := crd.ParseInputs(objects)
			if err != nil || len(unknown) > 0 || len(configs) != strings.Count(objects, "\nkind: ") {
				t.Errorf("istiod: %d objects, %d unknown, %v", len(configs), len(unknown), err)
			}
			if err := kubernetes.ValidateCustomResourceYAML(objects, nil); err != nil {
				t.Errorf("Kubernetes: %v", err)
			}
			findings, err := analyze(t, objects)
			if err != nil || len(findings) > 0 {
				t.Errorf("%v\n%s", err, strings.Join(findings, "\n"))
			}
		})
	}
}

// A mistake in what was rendered does not go unseen.
func TestTypos(t *testing.T) {
	all, kubernetes := goldens(t), definitions(t)
	for _, tc := range []struct {
		name, golden, old, new string
		want                   string // in what Kubernetes, istiod or the analyzers say
	}{
		{"a field that there is not", "service", "credentialName:", "credentialNam:", "credentialNam"},
		{"a field that there is not, and nobody needs", "service", "idleTimeout:", "idleTimeut:", "idleTimeut"},
		{"a field of another type", "service", "attempts: 0", "attempts: none", "error processing rendered.yaml"},
		{"a timeout that Istio does not take", "service", "      retries:", "      timeout: 0s\n      retries:", "duration must be greater than 1ms"},
		{"a mode that there is not", "tls", "mode: SIMPLE\n      credentialName: weir-ca", "mode: SIMPEL\n      credentialName: weir-ca", "SIMPEL"},
		{"a service that there is not", "service", "host: weir-envoy.weir.svc", "host: wier-envoy.weir.svc", "IST0101"},
		{"a gateway that there is not", "service", "gateways:\n    - weir", "gateways:\n    - wier", "IST0101"},
		{"a secret that there is not", "service", "credentialName: ai-cert", "credentialName: ai-crt", "IST0101"},
		{"pods that there are not", "service", "istio: ingressgateway", "istio: ingress-gateway", "IST0101"},
		{"a port that the service has not", "service", "number: 443", "number: 444", "IST0162"},
		{"an entry that there is not", "addresses", "hosts:\n    - ai-envoy.internal", "hosts:\n    - ia-envoy.internal", "IST0101"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			objects := strings.Replace(all[tc.golden], tc.old, tc.new, 1)
			if objects == all[tc.golden] {
				t.Fatalf("%s does not contain %q", tc.golden, tc.old)
			}
			var said []string
			if _, _, err := crd.ParseInputs(objects); err != nil {
				said = append(said, err.Error())
			}
			if err := kubernetes.ValidateCustomResourceYAML(objects, nil); err != nil {
				said = append(said, err.Error())
			}
			findings, err := analyze(t, objects)
			if err != nil {
				said = append(said, err.Error())
			}
			said = append(said, findings...)
			if !strings.Contains(strings.Join(said, "\n"), tc.want) {
				t.Errorf("nobody says %q:\n%s", tc.want, strings.Join(said, "\n"))
			}
			t.Log(strings.Join(said, "\n"))
		})
	}
}
