// Package api serves the admin API: it finds out who calls, holds what the caller's
// roles permit, and audits what was denied or failed. What a call does is done by
// the packages whose state it changes.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/proto/weir/admin/v1/adminv1connect"
)

// The roles of callers.
const (
	Viewer   = "viewer"   // reads
	Operator = "operator" // changes keys and rollouts
	Finance  = "finance"  // changes budgets
)

// call is what one procedure is called in the audit, and who may do it.
type call struct {
	action string
	roles  []string
	reads  bool
}

var everyone = []string{Viewer, Operator, Finance}

// calls are all procedures there are. One that is not listed is denied.
var calls = map[string]call{
	adminv1connect.KeyServiceCreateKeyProcedure:   {"key.create", []string{Operator}, false},
	adminv1connect.KeyServiceListKeysProcedure:    {"key.list", everyone, true},
	adminv1connect.KeyServiceGetKeyProcedure:      {"key.get", everyone, true},
	adminv1connect.KeyServiceRotateKeyProcedure:   {"key.rotate", []string{Operator}, false},
	adminv1connect.KeyServiceSetKeyStateProcedure: {"key.state", []string{Operator}, false},
	adminv1connect.KeyServiceRevokeKeyProcedure:   {"key.revoke", []string{Operator}, false},
	adminv1connect.AuditServiceListAuditProcedure: {"audit.list", everyone, true},

	adminv1connect.BudgetServiceListBudgetsProcedure: {"budget.list", everyone, true},
	adminv1connect.BudgetServiceResetBudgetProcedure: {"budget.reset", []string{Finance}, false},
}

const (
	maxRequest = 1 << 20
	maxDetail  = 512 // bytes of an error or a name in the audit
)

// Options are what the API is made of.
type Options struct {
	Keeper  *control.Keeper
	Budgets Budgets
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Now     func() time.Time // default: time.Now
	// Fetch fetches a provider's keys. Default: by HTTP, with the system's authorities
	Fetch http.RoundTripper
}

// Server is the admin API. Its handlers know the caller by the context, which
// Socket and Verifier.Handler fill.
type Server struct {
	o     Options
	mux   *http.ServeMux
	calls *prometheus.CounterVec
}

// New makes the API with the services of this package.
func New(o Options) *Server {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Fetch == nil {
		o.Fetch = http.DefaultTransport
	}
	s := &Server{o: o, mux: http.NewServeMux(), calls: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "weir_admin_calls_total", Help: "Calls of the admin API, by what they do and how they ended.",
	}, []string{"action", "outcome"})}
	o.Metrics.MustRegister(s.calls)
	s.Mount(adminv1connect.NewKeyServiceHandler(&keys{o.Keeper}, s.HandlerOptions()...))
	s.Mount(adminv1connect.NewAuditServiceHandler(&audit{o.Keeper.Store}, s.HandlerOptions()...))
	s.Mount(adminv1connect.NewBudgetServiceHandler(&budgets{o.Budgets, o.Keeper.Store, o.Now}, s.HandlerOptions()...))
	return s
}

// Mount adds a service, which must have been made with HandlerOptions and whose
// procedures stand in calls.
func (s *Server) Mount(path string, h http.Handler) { s.mux.Handle(path, h) }

// HandlerOptions hold who may call, and bound what is read.
func (s *Server) HandlerOptions() []connect.HandlerOption {
	return []connect.HandlerOption{
		connect.WithInterceptors(s), connect.WithReadMaxBytes(maxRequest), connect.WithCodec(strictJSON{}),
		connect.WithRecover(func(_ context.Context, spec connect.Spec, _ http.Header, fault any) error {
			s.o.Log.Error("admin API: a call panicked", "procedure", spec.Procedure, "panic", fault)
			return connect.NewError(connect.CodeInternal, errors.New("internal error"))
		}),
	}
}

type actorKey struct{}

// withActor says who calls.
func withActor(ctx context.Context, a control.Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// WrapUnary implements connect.Interceptor.
func (s *Server) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		c, known := calls[req.Spec().Procedure]
		actor, identified := ctx.Value(actorKey{}).(control.Actor)
		if !identified {
			s.calls.WithLabelValues(c.action, "unidentified").Inc()
			return nil, connect.NewError(connect.CodeUnauthenticated, errors.New("the caller did not prove who it is"))
		}
		if !known || !slices.ContainsFunc(c.roles, func(r string) bool { return slices.Contains(actor.Roles, r) }) {
			err := fmt.Errorf("%s needs the role %s; %s has %s", c.action, strings.Join(c.roles, " or "), actor.Name, rolesOf(actor))
			s.note(ctx, actor, c.action, req.Any(), control.Denied, err)
			return nil, connect.NewError(connect.CodePermissionDenied, err)
		}
		resp, err := next(ctx, req)
		if err == nil {
			s.calls.WithLabelValues(c.action, string(control.Done)).Inc()
			return resp, nil
		}
		if c.reads {
			s.calls.WithLabelValues(c.action, string(control.Failed)).Inc()
		} else {
			s.note(ctx, actor, c.action, req.Any(), control.Failed, err)
		}
		return nil, s.failure(c.action, err)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (s *Server) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler implements connect.Interceptor: there are no streams.
func (s *Server) WrapStreamingHandler(connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(context.Context, connect.StreamingHandlerConn) error {
		return connect.NewError(connect.CodeUnimplemented, errors.New("streams are not served"))
	}
}

func rolesOf(a control.Actor) string {
	if len(a.Roles) == 0 {
		return "none"
	}
	return strings.Join(a.Roles, ", ")
}

// named are requests about one object.
type named interface{ GetName() string }

// note audits a call that changed nothing. When even that fails, the caller still
// gets the refusal, and the log has it.
func (s *Server) note(ctx context.Context, actor control.Actor, action string, req any, outcome control.Outcome, why error) {
	s.calls.WithLabelValues(action, string(outcome)).Inc()
	object := ""
	if n, ok := req.(named); ok {
		kind, _, _ := strings.Cut(action, ".")
		object = kind + "/" + printable(n.GetName())
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := s.o.Keeper.Store.Note(ctx, control.Record{
		Time: s.o.Now(), Actor: actor.Name, Roles: actor.Roles, Action: action, Object: object, Outcome: outcome, Detail: printable(why.Error()),
	})
	if err != nil {
		s.o.Log.Error("admin API: the audit cannot be written", "actor", actor.Name, "action", action, "object", object, "outcome", outcome, "err", err)
	}
}

// printable is a caller's text in the audit: bounded, and on one line.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return '?'
		}
		return r
	}, text[:min(len(text), maxDetail)])
	return text
}

// failure is an error as callers see it. What is not about the call itself is
// logged and not told.
func (s *Server) failure(action string, err error) error {
	var already *connect.Error
	switch {
	case errors.As(err, &already):
		return err
	case errors.Is(err, control.ErrInvalid):
		return connect.NewError(connect.CodeInvalidArgument, err)
	case errors.Is(err, control.ErrNotFound):
		return connect.NewError(connect.CodeNotFound, err)
	case errors.Is(err, control.ErrExists):
		return connect.NewError(connect.CodeAlreadyExists, err)
	case errors.Is(err, control.ErrState), errors.Is(err, control.ErrHashSecret):
		return connect.NewError(connect.CodeFailedPrecondition, err)
	case errors.Is(err, control.ErrConflict):
		return connect.NewError(connect.CodeAborted, err)
	}
	s.o.Log.Error("admin API: a call failed", "action", action, "err", err)
	if errors.Is(err, control.ErrLost) {
		return connect.NewError(connect.CodeUnavailable, fmt.Errorf("%w: nothing is read from it or changed until an operator decides; weir's log says what to do", control.ErrLost))
	}
	if errors.Is(err, control.ErrNotInForce) {
		return connect.NewError(connect.CodeUnavailable, control.ErrNotInForce)
	}
	return connect.NewError(connect.CodeUnavailable, errors.New("the control store does not answer; weir's log says why"))
}
