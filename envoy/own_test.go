package envoy_test

import (
	"os"
	"strings"
	"testing"

	"github.com/weirproxy/weir/envoy"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/xds/build"
)

// What is rendered for an Envoy with listeners of its own is a configuration that
// Envoy takes, with and without TLS and tokens.
func TestOwnListeners(t *testing.T) {
	certificate, err := os.ReadFile("testdata/cert.pem")
	if err != nil {
		t.Fatal(err)
	}
	tls := &plan.ServerTLS{CertificateChain: certificate, ClientCA: certificate}
	for name, p := range map[string]*plan.Plan{
		"plain text": {Listeners: []plan.Listener{{Name: "main", Address: "127.0.0.1:10080"}}},
		"TLS":        {Listeners: []plan.Listener{{Name: "main", Address: "127.0.0.1:10443", TLS: tls}}},
		"tokens": {
			Listeners:    []plan.Listener{{Name: "main", Address: "127.0.0.1:10080"}},
			TokenIssuers: []*plan.TokenIssuer{{Name: "idp", Issuer: "https://idp", KeySet: []byte(`{"keys":[]}`)}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			listeners, err := build.Listeners(p)
			if err != nil {
				t.Fatal(err)
			}
			got, err := envoy.Bootstrap(envoy.BootstrapOptions{
				NodeID: "n", XDS: build.Service{Address: "127.0.0.1:1"}, Admin: "127.0.0.1:0", Listeners: listeners,
			})
			if err != nil {
				t.Fatal(err)
			}
			text := string(got)
			for _, want := range []string{`"cds_config"`, `"weir.own_listeners": true`, `"prefix": "x-weir-"`, `"cluster_name": "weir/extproc"`} {
				if !strings.Contains(text, want) {
					t.Errorf("no %s in it", want)
				}
			}
			if strings.Contains(text, `"lds_config"`) || strings.Contains(text, "PRIVATE KEY") {
				t.Error("it asks for listeners, or holds a key")
			}
			accepts(t, got)
		})
	}
	if _, err := build.Listeners(&plan.Plan{Listeners: []plan.Listener{{Name: "main", Address: "here:1"}}}); err == nil || !strings.Contains(err.Error(), `listener "main"`) {
		t.Errorf("error %v", err)
	}
}
