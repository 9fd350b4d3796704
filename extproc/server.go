// Package extproc answers Envoy's external processing filter: one request, one
// decision. It turns what Envoy sends into an exchange, lets the pipeline judge
// it, journals the decision, and answers once; then it ends the stream, so that
// a restart of weir cuts no response. It never sees a response.
package extproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weirproxy/weir/dialect"
	"github.com/weirproxy/weir/extproc/pipeline"
	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/internal/probe"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

// Journal keeps decisions.
type Journal interface {
	// Decided keeps a decision before its answer leaves weir; the journal owns d
	// from then on. When it fails, the request is refused: nothing is let through
	// that is not accounted for. A second decision with the id of an earlier one
	// withdraws that one: its answer never left, nothing was used.
	Decided(d *usagev1.Decision) error
}

// Options are what a Server is made of.
type Options struct {
	// Plan returns the plan in force; it is called once for each request.
	Plan     func() *plan.Plan
	Pipeline *pipeline.Pipeline
	Journal  Journal
	Metrics  *Metrics // may be nil
	// Late is told of each request that was let through under a plan that is not in
	// force any more; may be nil. The decision may be read, and not kept.
	Late  func(d *usagev1.Decision)
	Now   func() time.Time           // default: time.Now
	NewID func(now time.Time) string // default: NewID
	Log   *slog.Logger               // default: slog.Default()
}

// Server implements envoy.service.ext_proc.v3.ExternalProcessor.
type Server struct {
	opt   Options
	calls sync.Pool
	told  sync.Once // that Envoy is not configured as weir needs it
	seen  probe.Seen
}

// NewServer makes a server.
func NewServer(opt Options) *Server {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.NewID == nil {
		opt.NewID = NewID
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	return &Server{opt: opt, calls: sync.Pool{New: func() any { return new(call) }}}
}

// maxMessage is the largest message that is received: the largest body that a
// configuration may allow, and its headers.
const maxMessage = 256<<20 + 1<<20

// ServerOptions are the options that the gRPC server has to be made with.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		// Streams are short and many: workers that stay save a goroutine and the
		// growth of its stack for each.
		grpc.NumStreamWorkers(4),
		// Fixed windows, wide enough for large bodies, also switch off the
		// estimation of the bandwidth, which costs a ping every now and then.
		grpc.InitialWindowSize(1 << 20),
		grpc.InitialConnWindowSize(16 << 20),
	}
}

// ServiceName is the gRPC service that Envoy calls.
const ServiceName = "envoy.service.ext_proc.v3.ExternalProcessor"

// Register adds the service to a gRPC server that was made with ServerOptions.
func (s *Server) Register(g grpc.ServiceRegistrar) {
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: ServiceName,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName:    "Process",
			Handler:       func(_ any, stream grpc.ServerStream) error { return s.process(stream) },
			ServerStreams: true,
			ClientStreams: true,
		}},
		Metadata: "envoy/service/ext_proc/v3/external_processor.proto",
	}, s)
}

// call is what one stream needs; its memory is used again.
type call struct {
	ex         pipeline.Exchange
	head, tail request
	forward    forward
	again      []*plan.Pool // the targets, and those that are tried once more
}

// process serves one stream: headers, then the body if the headers call for one.
// It returns nil right after the last answer.
func (s *Server) process(stream grpc.ServerStream) (err error) {
	c := s.calls.Get().(*call)
	defer func() {
		if r := recover(); r != nil {
			s.opt.Log.Error("ext_proc handler panicked", "id", c.ex.In.ID, "panic", fmt.Sprintf("%T", r), "stack", string(debug.Stack()))
			s.opt.Pipeline.Undo(&c.ex)
			err = status.Error(codes.Internal, "internal error") // c is not used again
			return
		}
		c.release()
		s.calls.Put(c)
	}()
	if err = s.serve(stream.Context(), stream, c); errors.Is(err, io.EOF) {
		err = nil // Envoy's client went away before anything was decided
	}
	return err
}

func (s *Server) serve(ctx context.Context, stream grpc.ServerStream, c *call) error {
	if err := receive(stream, &c.head, partHeaders); err != nil {
		return err
	}
	ex, now, p := &c.ex, s.opt.Now(), s.opt.Plan()
	if p == nil { // Envoy answers 503
		return status.Error(codes.Unavailable, "no configuration is in force yet")
	}
	ex.Begin(p, s.opt.NewID(now), now, c.head.headers, !c.head.endOfStream)
	s.recognise(ex, now)
	if v := s.opt.Pipeline.Headers(ctx, ex); v.Stops() {
		return s.reply(stream, c, v)
	}
	if c.head.modeKnown && c.head.mode != bodyBuffered {
		s.told.Do(func() {
			s.opt.Log.Error("envoy does not send the body of a route buffered: its requests are refused", "kind", ex.In.Kind, "mode", c.head.mode)
		})
		return s.reply(stream, c, pipeline.Refuse(ai.ReasonInternal, "The gateway is not configured to read this request."))
	}
	if err := stream.SendMsg(goOnMessage); err != nil {
		return err
	}
	if err := receive(stream, &c.tail, partBody); err != nil {
		return err
	}
	if v := s.opt.Pipeline.Request(ctx, ex, c.tail.body); v.Stops() {
		return s.reply(stream, c, v)
	}
	return s.letThrough(ctx, stream, c)
}

// goOnMessage is an interface value so that sending it allocates nothing.
var goOnMessage any = rawMessage(goOn)

// receive takes the next message, which must be about the wanted part.
func receive(stream grpc.ServerStream, r *request, want part) error {
	if err := stream.RecvMsg(r); err != nil {
		return err
	}
	if r.part != want {
		return status.Error(codes.InvalidArgument, "unexpected message: send request headers, then the request body, buffered")
	}
	return nil
}

// reply journals and sends an answer of weir's own: a refusal, or a reply.
func (s *Server) reply(stream grpc.ServerStream, c *call, v pipeline.Verdict) error {
	if c.ex.Probe != nil {
		return s.answer(stream, c, &v, s.probed(c, &v))
	}
	answer := render(&c.ex, &v)
	if err := s.opt.Journal.Decided(record(&c.ex, &v)); err != nil {
		return s.unaccounted(stream, c, err)
	}
	return s.answer(stream, c, &v, answer)
}

// unaccounted refuses a request whose decision the journal did not take.
func (s *Server) unaccounted(stream grpc.ServerStream, c *call, why error) error {
	s.opt.Log.Error("decision not journalled", "id", c.ex.In.ID, "err", why)
	v := pipeline.Refuse(ai.ReasonUnavailable, "The gateway cannot account for this request now; try again.")
	return s.answer(stream, c, &v, render(&c.ex, &v))
}

// answer sends what the verdict was rendered as.
func (s *Server) answer(stream grpc.ServerStream, c *call, v *pipeline.Verdict, a immediate) error {
	s.opt.Metrics.observe(&c.ex, v)
	return stream.SendMsg(rawMessage(a.append(nil)))
}

// letThrough journals the decision and sends the request on its way; a probe ends
// here.
func (s *Server) letThrough(ctx context.Context, stream grpc.ServerStream, c *call) error {
	ex, allowed := &c.ex, pipeline.Verdict{}
	if ex.Probe != nil {
		return s.reply(stream, c, allowed)
	}
	if err := c.prepare(); err != nil {
		s.opt.Pipeline.Undo(ex)
		s.opt.Log.Error("body not edited", "id", ex.In.ID, "err", err)
		return s.reply(stream, c, pipeline.Refuse(ai.ReasonInternal, "The gateway could not edit the request."))
	}
	d := record(ex, &allowed)
	if err := s.opt.Journal.Decided(d); err != nil {
		s.opt.Pipeline.Undo(ex)
		return s.unaccounted(stream, c, err)
	}
	if s.opt.Late != nil && s.opt.Plan() != ex.Plan {
		s.opt.Late(d)
	}
	err := ctx.Err()
	if err == nil {
		err = stream.SendMsg(&c.forward)
	}
	if err != nil {
		s.withdraw(ex)
		return err
	}
	s.opt.Metrics.observe(ex, &allowed)
	return nil
}

// withdraw takes a decision back whose answer did not leave: Envoy did not wait.
func (s *Server) withdraw(ex *pipeline.Exchange) {
	s.opt.Pipeline.Undo(ex)
	v := pipeline.Refuse(ai.ReasonUnavailable, "")
	if err := s.opt.Journal.Decided(record(ex, &v)); err != nil {
		s.opt.Log.Error("withdrawal not journalled", "id", ex.In.ID, "err", err)
	}
	s.opt.Metrics.observe(ex, &v)
}

// maxKept bounds what a pooled call keeps of a request that was unusually large.
const maxKept = 4096

func (c *call) release() {
	c.head.release()
	c.tail.release()
	if v := &c.ex.In.Request.View; cap(v.Segments)+cap(v.Messages)+cap(v.Media)+cap(v.Fields) > maxKept {
		*v = dialect.View{}
		c.ex.Estimate = pipeline.Estimate{}
	}
	c.ex.Begin(nil, "", time.Time{}, nil, false)
	c.forward = forward{set: c.forward.set[:0], scratch: c.forward.scratch[:0], metadata: c.forward.metadata[:0]}
}
