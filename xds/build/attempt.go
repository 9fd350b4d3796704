package build

import (
	"time"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	credentialv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/credential_injector/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	codecv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/upstream_codec/v3"
	wasmfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	genericv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/injected_credentials/generic/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

// adapterName is the plugin's name, its root and its VM.
const adapterName = "weir.adapter"

// attemptFilters is the chain that each attempt at a pool passes: drop what is
// not for this backend, adapt, inject this pool's credential, send.
func (b *builder) attemptFilters(p *plan.Pool) []*hcmv3.HttpFilter {
	filters := []*hcmv3.HttpFilter{
		httpFilter("weir.drop", &headerv3.HeaderMutation{
			Mutations: &headerv3.Mutations{RequestMutations: b.attemptMutations()},
		}),
		httpFilter(adapterName, b.adapter()),
		// What was written for the adapter is not for the backend.
		httpFilter("weir.forget", &headerv3.HeaderMutation{
			Mutations: &headerv3.Mutations{RequestMutations: []*mutationv3.HeaderMutation{remove(ai.AttemptHeader)}},
		}),
	}
	if p.Credential != nil {
		filters = append(filters, httpFilter("weir.credential", credentialInjector(p)))
	}
	return append(filters, httpFilter("envoy.filters.http.upstream_codec", &codecv3.UpstreamCodec{}))
}

// adapter is the same for every cluster: Envoy makes a VM to try each plugin
// configuration that differs, some 20 ms of its main thread.
func (b *builder) adapter() *wasmfilterv3.Wasm {
	return &wasmfilterv3.Wasm{Config: &wasmv3.PluginConfig{
		Name:   adapterName,
		RootId: adapterName,
		Vm: &wasmv3.PluginConfig_VmConfig{VmConfig: &wasmv3.VmConfig{
			VmId:                 adapterName,
			Runtime:              "envoy.wasm.runtime.v8",
			EnvironmentVariables: &wasmv3.EnvironmentVariables{KeyValues: b.opts.WasmEnvironment},
			Code: &corev3.AsyncDataSource{Specifier: &corev3.AsyncDataSource_Local{
				Local: fileSource(b.opts.WasmFile),
			}},
		}},
		FailurePolicy: wasmv3.FailurePolicy_FAIL_RELOAD,
		ReloadConfig: &wasmv3.ReloadConfig{Backoff: &corev3.BackoffStrategy{
			BaseInterval: durationpb.New(100 * time.Millisecond),
		}},
		AllowOnHeadersStopIteration: wrapperspb.Bool(true),
	}}
}

// credentialInjector refuses a request when the secret is not there.
func credentialInjector(p *plan.Pool) *credentialv3.CredentialInjector {
	return &credentialv3.CredentialInjector{
		Overwrite: true,
		Credential: &corev3.TypedExtensionConfig{
			Name: "envoy.http.injected_credentials.generic",
			TypedConfig: pack(&genericv3.Generic{
				Header:     p.Credential.Header,
				Credential: &tlsv3.SdsSecretConfig{Name: credentialName(p), SdsConfig: ads()},
			}),
		},
	}
}

func credentialName(p *plan.Pool) string { return "credential/" + p.Name }

func credentialSecret(p *plan.Pool) *tlsv3.Secret {
	return &tlsv3.Secret{Name: credentialName(p), Type: &tlsv3.Secret_GenericSecret{
		GenericSecret: &tlsv3.GenericSecret{Secret: inlineSource([]byte(p.Credential.Value))},
	}}
}

func httpFilter(name string, config proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(config)}}
}

func fileSource(path string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: path}}
}

func inlineSource(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}
