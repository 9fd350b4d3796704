package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"time"

	"github.com/weirproxy/weir/extproc/explain"
	"github.com/weirproxy/weir/internal/doctor"
)

// OperatorSocket is where a running weir answers its own command line, in the
// runtime directory of its data directory. Only the user that weir runs as can open
// it, and nothing else authenticates: the doctor sends tokens where it is told, and
// who explains may ask with any key by its name.
const OperatorSocket = "operator.sock"

// The paths of the operator's socket.
const (
	DoctorPath   = "/doctor"
	ExplainPath  = "/explain"
	PoolsPath    = "/pools"
	HistoryPath  = "/history"
	RollbackPath = "/rollback"
	RolloutPath  = "/rollout"
	DryRunPath   = "/dry-run"
)

// DoctorRequest asks for an examination: of one proxy for once, or of all.
type DoctorRequest struct {
	Proxy *DoctorProxy `json:"proxy,omitempty"`
}

// DoctorProxy is a proxy that need not be in the configuration.
type DoctorProxy struct {
	Name       string `json:"name"`
	Listener   string `json:"listener"`
	URL        string `json:"url"` // scheme://host:port
	CA         []byte `json:"ca,omitempty"`
	ServerName string `json:"server_name,omitempty"`
}

// maxAsked bounds a request on the socket, in bytes.
const maxAsked = 64 << 20

// startOperator serves the operator's socket until stop.
func (a *app) startOperator(runtime string) error {
	l, err := listen("unix:" + filepath.Join(runtime, OperatorSocket))
	if err != nil {
		return fmt.Errorf("operator's socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+DoctorPath, answering(a.doctorNow))
	mux.HandleFunc("POST "+ExplainPath, answering(a.explainLive))
	mux.HandleFunc("POST "+PoolsPath, answering(a.poolsNow))
	mux.HandleFunc("POST "+HistoryPath, answering(a.versionsNow))
	mux.HandleFunc("POST "+RollbackPath, answering(a.rollback))
	mux.HandleFunc("POST "+DryRunPath, answering(a.dryRun))
	mux.HandleFunc("POST "+RolloutPath, answering(a.rollout))
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	a.onStop(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if s.Shutdown(ctx) != nil {
			_ = s.Close()
		}
	})
	go func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.failed <- fmt.Errorf("operator's socket: %w", err)
		}
	}()
	return nil
}

// answering makes a handler: JSON in, JSON out, and an error as text.
func answering[In, Out any](f func(context.Context, In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAsked))
		var in In
		if err == nil {
			err = json.Unmarshal(b, &in)
		}
		if err != nil {
			http.Error(w, "the request is not understood", http.StatusBadRequest)
			return
		}
		out, err := f(r.Context(), in)
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.Header().Set("content-type", "application/json")
		_ = json.NewEncoder(w).Encode(out)
	}
}

// doctorNow examines at once.
func (a *app) doctorNow(ctx context.Context, in DoctorRequest) (*doctor.Report, error) {
	if in.Proxy == nil {
		return a.examine(ctx, nil), nil
	}
	t := doctor.Target{Proxy: in.Proxy.Name, Listener: in.Proxy.Listener, URL: in.Proxy.URL,
		TLS: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: in.Proxy.ServerName}}
	if len(in.Proxy.CA) > 0 {
		if t.TLS.RootCAs = x509.NewCertPool(); !t.TLS.RootCAs.AppendCertsFromPEM(in.Proxy.CA) {
			return nil, errors.New("the authorities hold no certificate")
		}
	}
	if p := a.plan.Load(); p != nil {
		if err := doctor.Show(t.TLS, p.Doctor.Certificate); err != nil {
			return nil, err
		}
	}
	return a.examine(ctx, []doctor.Target{t}), nil
}

// explainLive explains a request by the limits as they are used now. It takes
// nothing from them.
func (a *app) explainLive(ctx context.Context, in explain.Input) (*explain.Result, error) {
	p := a.plan.Load()
	if a.pipe == nil || p == nil {
		return nil, errors.New("this weir decides about no requests: ask one with the role extproc")
	}
	return explain.Live(ctx, a.pipe, p, in, a.limits.ledger), nil
}
