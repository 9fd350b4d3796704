package app

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/weirproxy/weir/xds"
)

// registerReload shows whether the configuration file is in force.
func (a *app) registerReload() {
	a.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "weir_config_last_reload_successful",
		Help: "1 when the configuration file as it is now is in force, 0 when it was refused.",
	}, func() float64 {
		a.reload.mu.Lock()
		defer a.reload.mu.Unlock()
		if a.reload.refused != nil {
			return 0
		}
		return 1
	}))
}

// registerXDS makes the xDS server, with its metrics and its readiness, and adds
// it to a gRPC server.
func (a *app) registerXDS(ctx context.Context, g *grpc.Server) {
	rejections := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "weir_xds_rejections_total", Help: "Refusals by an Envoy of resources of a type.",
	}, []string{"type"})
	server := xds.NewServer(xds.Options{Log: a.log, OnNACK: func(r xds.Rejection) { rejections.WithLabelValues(r.Type).Inc() }})
	envoys := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "weir_xds_envoys", Help: "Envoys that are connected.",
	}, func() float64 {
		n := 0
		for _, node := range server.Status().Nodes {
			if node.Streams > 0 {
				n++
			}
		}
		return float64(n)
	})
	a.reg.MustRegister(rejections, envoys)
	a.checks[string(RoleXDS)] = func() error {
		if server.Status().Version == "" {
			return errors.New("nothing is published yet")
		}
		return nil
	}
	server.Register(ctx, g)
	a.xds = server
}
