package build

import (
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	grpclogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/internal/ai"
)

// logFields is one line of the access log: what weir settles a request by.
var logFields = map[string]string{
	"id":     "%DYNAMIC_METADATA(" + ai.MetadataNamespace + ":" + ai.MetaID + ")%",
	"rid":    "%RESP(" + ai.DecisionHeader + ")%",
	"start":  "%START_TIME(%s.%6f)%",
	"dur_us": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
	// The last byte of an answer that was cut never left, and dur_us is absent.
	"dur_ms":  "%DURATION%",
	"status":  "%RESPONSE_CODE%",
	"flags":   "%RESPONSE_FLAGS%",
	"details": "%RESPONSE_CODE_DETAILS%",
	"bytes":   "%BYTES_SENT%",
	"att":     "%FILTER_STATE(wasm." + ai.StateAttempts + ":PLAIN)%",
	"use":     "%FILTER_STATE(wasm." + ai.StateUsage + ":PLAIN)%",
	"n":       "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
	"cluster": "%UPSTREAM_CLUSTER_RAW%",
	// DownstreamPeriodic for a request that still runs.
	"type":   "%ACCESS_LOG_TYPE%",
	"method": "%REQ(:METHOD)%",
	"path":   "%PATH(NQ)%",
}

func (b *builder) accessLog() []*accesslogv3.AccessLog {
	l := &accesslogv3.AccessLog{Name: "weir.file"}
	if b.opts.AccessLogFile != "" {
		l.ConfigType = &accesslogv3.AccessLog_TypedConfig{TypedConfig: pack(fileLog(b.opts.AccessLogFile))}
	} else {
		l.Name = "weir.grpc"
		l.ConfigType = &accesslogv3.AccessLog_TypedConfig{TypedConfig: pack(grpcLog())}
	}
	return []*accesslogv3.AccessLog{l}
}

// mostPeriod bounds how long a request that runs is silent in the access log.
const mostPeriod = time.Minute

// accessLogOptions let requests that run for long tell so, several times before their
// deadline: a reservation is not given up while its answer streams.
func (b *builder) accessLogOptions() *hcmv3.HttpConnectionManager_HcmAccessLogOptions {
	period := min(b.plan.Usage.SettleDeadline/3, mostPeriod)
	if period <= 0 {
		return nil
	}
	return &hcmv3.HttpConnectionManager_HcmAccessLogOptions{AccessLogFlushInterval: durationpb.New(max(period, time.Second/2))}
}

func fileLog(path string) *filelogv3.FileAccessLog {
	fields := make(map[string]*structpb.Value, len(logFields))
	for name, operator := range logFields {
		fields[name] = structpb.NewStringValue(operator)
	}
	return &filelogv3.FileAccessLog{
		Path: path,
		AccessLogFormat: &filelogv3.FileAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: &structpb.Struct{Fields: fields}},
		}},
	}
}

// grpcLog carries the same facts in the entry's own fields, its dynamic metadata
// and its filter state.
func grpcLog() *grpclogv3.HttpGrpcAccessLogConfig {
	return &grpclogv3.HttpGrpcAccessLogConfig{
		AdditionalResponseHeadersToLog: []string{ai.DecisionHeader},
		CommonConfig: &grpclogv3.CommonGrpcAccessLogConfig{
			LogName:                 "weir",
			TransportApiVersion:     corev3.ApiVersion_V3,
			GrpcService:             grpcService(AccessLogCluster, 0),
			BufferFlushInterval:     durationpb.New(100 * time.Millisecond),
			FilterStateObjectsToLog: []string{"wasm." + ai.StateAttempts, "wasm." + ai.StateUsage},
		},
	}
}
