package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/doctor"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/xds"
)

// ownNode is the node id of the Envoy that `weir up` runs.
const ownNode = "weir-up"

// atOnce bounds how many listeners are examined at a time.
const atOnce = 4

// examine proves what can be proved now: on the given listeners, or on all that are
// known. A plan that is replaced meanwhile is no fault: then it looks again.
func (a *app) examine(ctx context.Context, only []doctor.Target) *doctor.Report {
	for range 3 {
		p := a.plan.Load()
		r := a.examineUnder(ctx, p, only)
		if a.plan.Load() == p {
			return r
		}
	}
	return &doctor.Report{At: time.Now(), Findings: []doctor.Finding{{
		Policy: "configuration", State: doctor.Unknown, Evidence: "it changes all the time",
	}}}
}

func (a *app) examineUnder(ctx context.Context, p *plan.Plan, only []doctor.Target) *doctor.Report {
	r := &doctor.Report{At: time.Now()}
	if p == nil {
		r.Findings = []doctor.Finding{{Policy: "configuration", State: doctor.Unknown, Evidence: "none is in force yet"}}
		return r
	}
	r.Plan = p.Version
	targets := only
	if only == nil {
		targets, r.Findings = a.targets(p)
		r.Findings = append(r.Findings, a.configured(p)...)
		if a.xds != nil {
			r.Findings = append(r.Findings, xdsFindings(a.xdsStatus(), p, targets, r.At)...)
		}
	}
	r.Findings = append(r.Findings, examineAll(ctx, p, targets)...)
	r.Sort()
	return r
}

// examineAll examines listeners, some at a time.
func examineAll(ctx context.Context, p *plan.Plan, targets []doctor.Target) []doctor.Finding {
	found := make([][]doctor.Finding, len(targets))
	var all sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i, t := range targets {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			found[i] = new(doctor.Examiner).Examine(ctx, p, t)
		})
	}
	all.Wait()
	var list []doctor.Finding
	for _, f := range found {
		list = append(list, f...)
	}
	return list
}

// targets are the listeners that can be reached: those of an Envoy of our own, and
// those that the configuration knows a way to.
func (a *app) targets(p *plan.Plan) (list []doctor.Target, faults []doctor.Finding) {
	if a.ownEnvoy {
		own, err := ownTargets(p)
		if err != nil {
			faults = append(faults, doctor.Finding{Proxy: ownNode, Policy: doctor.Decisions, State: doctor.Unknown, Evidence: err.Error()})
		}
		list = own
	}
	for _, proxy := range p.Doctor.Proxies {
		t := doctor.Target{Proxy: proxy.Name, Listener: proxy.Listener, URL: proxy.URL}
		var err error
		if t.TLS, err = proxyTLS(proxy); err == nil {
			err = doctor.Show(t.TLS, p.Doctor.Certificate)
		}
		if err != nil {
			faults = append(faults, doctor.Finding{Proxy: proxy.Name, Listener: proxy.Listener, Policy: doctor.Decisions, State: doctor.Unknown, Evidence: err.Error()})
			continue
		}
		list = append(list, t)
	}
	return list, faults
}

// ownTargets are the listeners of an Envoy on this machine.
func ownTargets(p *plan.Plan) ([]doctor.Target, error) {
	var list []doctor.Target
	for _, l := range p.Listeners {
		t := doctor.Target{Proxy: ownNode, Listener: l.Name, URL: "http://" + reachable(l.Address)}
		if l.TLS != nil {
			var err error
			if t.TLS, err = doctor.OwnTLS(l.TLS); err == nil {
				err = doctor.Show(t.TLS, p.Doctor.Certificate)
			}
			if err != nil {
				return list, fmt.Errorf("listener %q: %w", l.Name, err)
			}
			t.URL = "https://" + reachable(l.Address)
		}
		list = append(list, t)
	}
	return list, nil
}

func proxyTLS(proxy plan.Proxy) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: proxy.ServerName}
	if proxy.CAFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(proxy.CAFile)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, errors.New("ca_file: no certificate in it")
	}
	return c, nil
}

// configured tells what can be told without asking a proxy: whether the file is in
// force, what in it is probably not meant, and what counts nothing.
func (a *app) configured(p *plan.Plan) []doctor.Finding {
	a.reload.mu.Lock()
	refused, warnings := a.reload.refused, a.reload.warnings
	a.reload.mu.Unlock()
	f := doctor.Finding{Policy: "configuration", State: doctor.InForce, Evidence: "the file is in force"}
	if refused != nil {
		f.State, f.Evidence = doctor.NotInForce, "the file is refused, and an older one is in force: "+refused.Error()
	}
	list := []doctor.Finding{f}
	for _, w := range warnings {
		list = append(list, doctor.Finding{Policy: "configuration", State: doctor.Warning, Evidence: w.String()})
	}
	return append(list, doctor.Idle(p)...)
}

// xdsStatus is the state of the Envoys; of their last refusal, only while a file is
// refused: what came after it has all been accepted.
func (a *app) xdsStatus() xds.Status {
	s := a.xds.Status()
	a.reload.mu.Lock()
	defer a.reload.mu.Unlock()
	if a.reload.refused == nil {
		s.Last = nil
	}
	return s
}

// xdsFindings tells what each connected Envoy has accepted, and which of them nobody
// knows a way to.
func xdsFindings(s xds.Status, p *plan.Plan, targets []doctor.Target, now time.Time) []doctor.Finding {
	probed := map[[2]string]bool{}
	for _, t := range targets {
		probed[[2]string{t.Proxy, t.Listener}] = true
	}
	var list []doctor.Finding
	for _, n := range s.Nodes {
		for _, t := range n.Types {
			list = append(list, typeFinding(n, t, s.Last, now))
		}
		for _, l := range p.Listeners {
			if !probed[[2]string{n.ID, l.Name}] {
				list = append(list, doctor.Finding{Proxy: n.ID, Listener: l.Name, Policy: "every policy", State: doctor.Unknown,
					Evidence: "not probed: doctor.proxies names no way there"})
			}
		}
	}
	return append(list, strangers(s, targets)...)
}

// typeFinding tells of one type of resource. A change that is under way is neither in
// force nor is it proved that it is not.
func typeFinding(n xds.NodeStatus, t xds.TypeStatus, last *xds.Rejection, now time.Time) doctor.Finding {
	f := doctor.Finding{Proxy: n.ID, Policy: "xds " + t.Type}
	since := t.Since.UTC().Format(time.RFC3339)
	switch {
	case n.Held != nil && n.Held.Type == t.Type:
		f.State, f.Evidence = doctor.NotInForce, fmt.Sprintf("it refused version %s at %s: %s", n.Held.Version, n.Held.At.UTC().Format(time.RFC3339), n.Held.Detail)
	case t.Current && last != nil && last.Node == n.ID && last.Type == t.Type:
		f.State, f.Evidence = doctor.Warning, fmt.Sprintf("version %s, which all have; it refused version %s at %s: %s", t.Wanted, last.Version, last.At.UTC().Format(time.RFC3339), last.Detail)
	case t.Current:
		f.State, f.Evidence = doctor.InForce, "version "+t.Wanted
	case now.Sub(t.Since) < ackTimeout:
		f.State, f.Evidence = doctor.Unknown, fmt.Sprintf("version %s is on its way since %s", t.Wanted, since)
	default:
		f.State, f.Evidence = doctor.NotInForce, fmt.Sprintf("it holds version %q and not %s, published at %s", t.Held, t.Wanted, since)
	}
	return f
}

// strangers are proxies that the configuration knows a way to and that are not
// connected: what they enforce is what they had last.
func strangers(s xds.Status, targets []doctor.Target) []doctor.Finding {
	connected := map[string]bool{}
	for _, n := range s.Nodes {
		connected[n.ID] = true
	}
	var list []doctor.Finding
	for _, t := range targets {
		if !connected[t.Proxy] {
			connected[t.Proxy] = true // once
			list = append(list, doctor.Finding{Proxy: t.Proxy, Policy: "xds", State: doctor.Unknown, Evidence: "not connected here: changes do not reach it from this weir"})
		}
	}
	return list
}
