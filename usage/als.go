package usage

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math"
	"strings"
	"time"

	accesslogdata "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslog "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/ai"
)

// RegisterALS takes entries from Envoy's gRPC access log. That log is not
// acknowledged: what it loses is closed by its deadline.
func (r *Recorder) RegisterALS(s *grpc.Server) {
	accesslog.RegisterAccessLogServiceServer(s, &receiver{r: r})
}

type receiver struct {
	accesslog.UnimplementedAccessLogServiceServer
	r *Recorder
}

// StreamAccessLogs takes entries until Envoy ends the stream.
func (s *receiver) StreamAccessLogs(stream accesslog.AccessLogService_StreamAccessLogsServer) error {
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&accesslog.StreamAccessLogsResponse{})
		}
		if err != nil {
			return err
		}
		var entries []Entry
		for _, raw := range msg.GetHttpLogs().GetLogEntry() {
			e, err := DecodeALS(raw)
			if err != nil {
				s.r.metrics.drop(dropGarbled)
				continue
			}
			if s.r.elsewhere(&e, raw) {
				continue
			}
			entries = append(entries, e)
		}
		if err := s.takeAll(stream.Context(), entries); err != nil {
			return err
		}
	}
}

// elsewhere hands an entry on when another replica decided.
func (r *Recorder) elsewhere(e *Entry, raw *accesslogdata.HTTPAccessLogEntry) bool {
	if r.opt.HandOn == nil || e.ID == nil {
		return false
	}
	r.mu.Lock()
	own := r.pending.find(*e.ID) != nil || r.done.has(*e.ID)
	r.mu.Unlock()
	if own {
		return false
	}
	return r.opt.HandOn(*e.ID, func() ([]byte, error) { return proto.Marshal(raw) })
}

// TakeHanded takes entries that other replicas received and handed on. An error
// means that none was taken: they may be given again.
func (r *Recorder) TakeHanded(ctx context.Context, list [][]byte) error {
	entries := make([]Entry, 0, len(list))
	for _, b := range list {
		e, err := decodeHanded(b)
		if err != nil {
			r.metrics.drop(dropGarbled)
			continue
		}
		entries = append(entries, e)
	}
	return r.take(ctx, entries, nil)
}

func decodeHanded(b []byte) (Entry, error) {
	var raw accesslogdata.HTTPAccessLogEntry
	if err := proto.Unmarshal(b, &raw); err != nil {
		return Entry{}, errGarbled
	}
	return DecodeALS(&raw)
}

// takeAll tries until the entries are taken or the stream ends: they come once.
func (s *receiver) takeAll(ctx context.Context, entries []Entry) error {
	for {
		err := s.r.take(ctx, entries, nil)
		if err == nil {
			return nil
		}
		s.r.opt.Logger.Error("usage events cannot be journalled", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(askAgain):
		}
	}
}

// DecodeALS reads an entry of Envoy's gRPC access log. Filter state stands in
// filter_state_objects under wasm.<name>.
func DecodeALS(raw *accesslogdata.HTTPAccessLogEntry) (Entry, error) {
	c, resp := raw.GetCommonProperties(), raw.GetResponse()
	start := c.GetStartTime()
	if start == nil || start.CheckValid() != nil || start.AsTime().Unix() < 0 {
		return Entry{}, errGarbled
	}
	meta := c.GetMetadata().GetFilterMetadata()[ai.MetadataNamespace].GetFields()[ai.MetaID].GetStringValue()
	e := Entry{
		Start:    start.AsTime(),
		Duration: alsDuration(c),
		Status:   int(min(resp.GetResponseCode().GetValue(), 999)),
		Flags:    strings.Join(alsFlags(c.GetResponseFlags()), ","),
		Details:  clip(resp.GetResponseCodeDetails(), maxText),
		Bytes:    int64(min(resp.GetResponseBodyBytes(), 1<<62)),
		Attempts: alsState(c, ai.StateAttempts),
		Usage:    alsState(c, ai.StateUsage),
		Cluster:  clip(c.GetUpstreamCluster(), maxText),
		Tries:    int(min(c.GetUpstreamRequestAttemptCount(), math.MaxInt32)),
		Periodic: alsPeriodic(c),
	}
	if err := e.identify(meta, resp.GetResponseHeaders()[ai.DecisionHeader]); err != nil {
		return Entry{}, errGarbled
	}
	if e.ID == nil {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(raw)
		if err != nil {
			return Entry{}, errGarbled
		}
		sum := sha256.Sum256(b)
		e.Digest = ID(sum[:len(ID{})])
	}
	return e, nil
}

// alsDuration is the time until the client had the last byte.
func alsDuration(c *accesslogdata.AccessLogCommon) time.Duration {
	for _, d := range []time.Duration{c.GetTimeToLastDownstreamTxByte().AsDuration(), c.GetDuration().AsDuration()} {
		if d > 0 {
			return d
		}
	}
	return 0
}

func alsPeriodic(c *accesslogdata.AccessLogCommon) bool {
	switch c.GetAccessLogType() {
	case accesslogdata.AccessLogType_NotSet, accesslogdata.AccessLogType_DownstreamEnd:
		return false
	}
	return true
}

// alsState is a filter state's text. Envoy wraps what a Wasm filter sets in a
// BytesValue.
func alsState(c *accesslogdata.AccessLogCommon, name string) string {
	a := c.GetFilterStateObjects()["wasm."+name]
	if a == nil {
		return ""
	}
	var bytes wrapperspb.BytesValue
	if a.MessageIs(&bytes) && anypb.UnmarshalTo(a, &bytes, proto.UnmarshalOptions{}) == nil {
		return clip(string(bytes.GetValue()), maxState)
	}
	var text wrapperspb.StringValue
	if a.MessageIs(&text) && anypb.UnmarshalTo(a, &text, proto.UnmarshalOptions{}) == nil {
		return clip(text.GetValue(), maxState)
	}
	return ""
}

// alsFlags are the response flags in the words of Envoy's text log.
func alsFlags(f *accesslogdata.ResponseFlags) []string {
	var list []string
	for _, flag := range [...]struct {
		set  bool
		word string
	}{
		{f.GetFailedLocalHealthcheck(), "LH"}, {f.GetNoHealthyUpstream(), "UH"}, {f.GetUpstreamRequestTimeout(), "UT"},
		{f.GetLocalReset(), "LR"}, {f.GetUpstreamRemoteReset(), "UR"}, {f.GetUpstreamConnectionFailure(), "UF"},
		{f.GetUpstreamConnectionTermination(), "UC"}, {f.GetUpstreamOverflow(), "UO"}, {f.GetNoRouteFound(), "NR"},
		{f.GetDelayInjected(), "DI"}, {f.GetFaultInjected(), "FI"}, {f.GetRateLimited(), "RL"},
		{f.GetUnauthorizedDetails() != nil, "UAEX"}, {f.GetRateLimitServiceError(), "RLSE"},
		{f.GetDownstreamConnectionTermination(), "DC"}, {f.GetUpstreamRetryLimitExceeded(), "URX"},
		{f.GetStreamIdleTimeout(), "SI"}, {f.GetInvalidEnvoyRequestHeaders(), "IH"}, {f.GetDownstreamProtocolError(), "DPE"},
		{f.GetUpstreamMaxStreamDurationReached(), "UMSDR"}, {f.GetResponseFromCacheFilter(), "RFCF"},
		{f.GetNoFilterConfigFound(), "NFCF"}, {f.GetDurationTimeout(), "DT"}, {f.GetUpstreamProtocolError(), "UPE"},
		{f.GetNoClusterFound(), "NC"}, {f.GetOverloadManager(), "OM"}, {f.GetDnsResolutionFailure(), "DF"},
		{f.GetDownstreamRemoteReset(), "DR"},
	} {
		if flag.set {
			list = append(list, flag.word)
		}
	}
	return list
}
