package build

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

const (
	// decideTimeout bounds one answer of weir; the client gets 504 after it.
	decideTimeout = 10 * time.Second

	// An edge proxy's bounds, after Envoy's own advice for the edge.
	maxStreams      = 100
	streamWindow    = 64 << 10
	connWindow      = 1 << 20
	headersTimeout  = 10 * time.Second
	streamIdle      = 5 * time.Minute
	connectionIdle  = 15 * time.Minute
	maxHeaders      = 100
	maxHeadersKB    = 60
	drainTimeout    = 5 * time.Second
	delayedClose    = time.Second
	tlsHandshake    = 10 * time.Second
	requestDuration = 10 * time.Minute // to receive one request, body included
)

// listener depends on the plan's listener, the options, and whether there are token
// issuers: a change of a model, route, key, network, workload, issuer, limit or bound
// leaves its bytes as they are, so that Envoy drains nothing.
func (b *builder) listener(l *plan.Listener) error {
	host, port, err := listenAddress(l.Address)
	if err != nil {
		return err
	}
	chain := &listenerv3.FilterChain{
		TransportSocket: b.listenerTLS(l),
		Filters: []*listenerv3.Filter{{
			Name:       "envoy.filters.network.http_connection_manager",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(b.connectionManager(l))},
		}},
	}
	if l.TLS != nil {
		chain.TransportSocketConnectTimeout = durationpb.New(tlsHandshake)
	}
	b.res.Listeners = append(b.res.Listeners, &listenerv3.Listener{
		Name:                          l.Name,
		StatPrefix:                    l.Name,
		Address:                       socketAddress(host, port),
		FilterChains:                  []*listenerv3.FilterChain{chain},
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(connectionBuffer),
	})
	return nil
}

func listenAddress(address string) (string, uint32, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("address %q: want host:port", address)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("address %q: port is not in 0 to 65535", address)
	}
	switch host {
	case "", "*":
		host = "0.0.0.0"
	case "localhost":
		host = "127.0.0.1"
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return "", 0, fmt.Errorf("address %q: Envoy listens on an IP address, not on a name", address)
	}
	return host, uint32(n), nil
}

func (b *builder) connectionManager(l *plan.Listener) *hcmv3.HttpConnectionManager {
	return &hcmv3.HttpConnectionManager{
		StatPrefix: l.Name,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			RouteConfigName: RouteConfig, ConfigSource: ads(),
		}},
		HttpFilters: append(b.tokenFilters(),
			httpFilter(extProcFilter, extProc()),
			httpFilter("envoy.filters.http.router", &routerv3.Router{SuppressEnvoyHeaders: true}),
		),
		AccessLog:        b.accessLog(),
		AccessLogOptions: b.accessLogOptions(),
		LocalReplyConfig: localReplies(),

		EarlyHeaderMutationExtensions: []*corev3.TypedExtensionConfig{{
			Name:        "weir.early",
			TypedConfig: pack(&earlyv3.HeaderMutation{Mutations: earlyMutations(l)}),
		}},
		UseRemoteAddress:             wrapperspb.Bool(true),
		ForwardClientCertDetails:     clientCertHeader(l),
		NormalizePath:                wrapperspb.Bool(true),
		MergeSlashes:                 true,
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_REJECT_REQUEST,
		GenerateRequestId:            wrapperspb.Bool(true),
		ServerName:                   "weir",
		ServerHeaderTransformation:   hcmv3.HttpConnectionManager_OVERWRITE,
		MaxRequestHeadersKb:          wrapperspb.UInt32(maxHeadersKB),
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			IdleTimeout:                  durationpb.New(connectionIdle),
			MaxHeadersCount:              wrapperspb.UInt32(maxHeaders),
			HeadersWithUnderscoresAction: corev3.HttpProtocolOptions_REJECT_REQUEST,
		},
		Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
			MaxConcurrentStreams:        wrapperspb.UInt32(maxStreams),
			InitialStreamWindowSize:     wrapperspb.UInt32(streamWindow),
			InitialConnectionWindowSize: wrapperspb.UInt32(connWindow),
		},
		StreamIdleTimeout:     durationpb.New(streamIdle),
		RequestHeadersTimeout: durationpb.New(headersTimeout),
		RequestTimeout:        durationpb.New(requestDuration),
		DrainTimeout:          durationpb.New(drainTimeout),
		DelayedCloseTimeout:   durationpb.New(delayedClose),
	}
}

// clientCertHeader tells what becomes of x-forwarded-client-cert. Where it passes,
// weir believes it from trusted proxies alone.
func clientCertHeader(l *plan.Listener) hcmv3.HttpConnectionManager_ForwardClientCertDetails {
	if l.TrustClientCertHeader {
		return hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY
	}
	return hcmv3.HttpConnectionManager_SANITIZE
}

// extProc asks weir, and fails closed.
func extProc() *extprocv3.ExternalProcessor {
	return &extprocv3.ExternalProcessor{
		GrpcService:      asked(),
		StatPrefix:       "weir",
		FailureModeAllow: false,
		StatusOnError:    &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
		ProcessingMode:   processingMode(extprocv3.ProcessingMode_BUFFERED),
		MessageTimeout:   durationpb.New(decideTimeout),
		// weir sets x-envoy-max-retries and x-envoy-upstream-rq-per-try-timeout-ms.
		MutationRules: &mutationv3.HeaderMutationRules{AllowEnvoy: wrapperspb.Bool(true)},
		MetadataOptions: &extprocv3.MetadataOptions{
			ReceivingNamespaces: &extprocv3.MetadataOptions_MetadataNamespaces{
				Untyped: []string{ai.MetadataNamespace, ai.PriorityNamespace},
			},
		},
	}
}

// processingMode never sends a response to weir.
func processingMode(body extprocv3.ProcessingMode_BodySendMode) *extprocv3.ProcessingMode {
	return &extprocv3.ProcessingMode{
		RequestHeaderMode:   extprocv3.ProcessingMode_SEND,
		RequestBodyMode:     body,
		RequestTrailerMode:  extprocv3.ProcessingMode_SKIP,
		ResponseHeaderMode:  extprocv3.ProcessingMode_SKIP,
		ResponseBodyMode:    extprocv3.ProcessingMode_NONE,
		ResponseTrailerMode: extprocv3.ProcessingMode_SKIP,
	}
}
