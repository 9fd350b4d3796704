package xds_test

import (
	"context"
	"errors"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/xds/build"
)

// withOwnListeners makes the peer an Envoy whose listeners are its operator's.
func withOwnListeners(p peer) peer {
	metadata := &structpb.Struct{Fields: map[string]*structpb.Value{build.OwnListeners: structpb.NewBoolValue(true)}}
	switch p := p.(type) {
	case *sotwPeer:
		p.node = &corev3.Node{Id: p.node.Id, Metadata: metadata}
	case *deltaPeer:
		p.node = &corev3.Node{Id: p.node.Id, Metadata: metadata}
	}
	return p
}

// TestOwnListeners: such an Envoy has everything without a listener and without the
// certificates of weir's listeners, but not without routes or a pool's credential.
func TestOwnListeners(t *testing.T) {
	each(t, func(t *testing.T, dial func(*testing.T, string, string) peer) {
		c := startControl(t)
		one := pool("a", plan.Endpoint{Host: "10.0.0.1", Port: 80})
		one.Credential = &plan.Credential{Header: "authorization", Value: "secret"}
		p := planOf(one)
		p.Listeners[0].TLS = &plan.ServerTLS{CertificateChain: []byte("c"), PrivateKey: []byte("k"), ClientCA: []byte("a")}
		res, err := build.Build(p, build.Options{ExtProc: build.Service{Address: "unix:/e"}, AccessLogFile: "/l", WasmFile: "/w"})
		if err != nil {
			t.Fatal(err)
		}
		version, err := c.Publish(res)
		if err != nil {
			t.Fatal(err)
		}
		envoy := withOwnListeners(dial(t, c.address, "own"))
		take := func(typeURL string, got []string, names ...string) {
			t.Helper()
			envoy.ask(t, typeURL, names...)
			expect(t, envoy, typeURL, got)
			envoy.ack(t, typeURL)
		}
		lacks := func(what string) {
			t.Helper()
			if err := waitACK(t, c, version, 50*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("current without %s: %v", what, err)
			}
		}
		endpoints := make([]string, 0, len(res.Endpoints))
		for _, e := range res.Endpoints {
			endpoints = append(endpoints, e.ClusterName)
		}
		take(resourcev3.ClusterType, clusters("a"))
		lacks("endpoints")
		take(resourcev3.EndpointType, endpoints, endpoints...)
		lacks("the credential")
		take(resourcev3.SecretType, []string{"credential/a"}, "credential/a")
		lacks("routes")
		take(resourcev3.RouteType, []string{build.RouteConfig}, build.RouteConfig)
		if err := waitACK(t, c, version, 5*time.Second); err != nil {
			t.Error(err)
		}
		for _, held := range c.Status().Nodes[0].Types {
			if !held.Current {
				t.Errorf("%+v", held)
			}
		}
	})
}
