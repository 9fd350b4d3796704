package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weirproxy/weir/internal/rollout"
	"github.com/weirproxy/weir/internal/simulate"
)

// rolloutOf runs `weir rollout` and gives what it says of the model chat.
func (g *gateway) rolloutOf(t *testing.T, args ...string) rollout.Status {
	t.Helper()
	out, errs, code := weir(t, "", append([]string{"rollout"}, append(args, "--data", g.dir, "--format", "json")...)...)
	var r struct{ Rollouts []rollout.Status }
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || len(r.Rollouts) != 1 || r.Rollouts[0].Model != "chat" {
		t.Fatalf("weir rollout %s: exit code %d, %v: %s%s", args, code, err, out, errs)
	}
	return r.Rollouts[0]
}

// reaches waits until the rollout is in a phase, and gives it.
func (g *gateway) reaches(t *testing.T, phase rollout.Phase, percent float64) (s rollout.Status) {
	t.Helper()
	eventually(t, 30*time.Second, func() string {
		if s = g.rolloutOf(t, "status"); s.Phase != phase || s.Percent != percent {
			return fmt.Sprintf("%+v %+v", s, s.Counts)
		}
		return ""
	})
	return s
}

// newCanary is a world whose model chat can move from a to b.
func newCanary(t *testing.T, conf string) *world {
	t.Helper()
	return newWorld(t, "    attempt_timeout: 3s\n    targets: [{pool: a}, {pool: b}]", "    attempt_timeout: 3s\n    targets: [{pool: a}]\n    rollout: "+conf)
}

// A canary that does well takes over step by step, under load, without a request that
// fails; it stays so over a restart; and abort brings all back at once.
func TestRollout(t *testing.T) {
	t.Parallel()
	w := newCanary(t, "{to: b, sticky: request, steps: [{percent: 20, pause: 1s}, {percent: 60, pause: 1s}], judge: {min_requests: 40, max_first_token_ratio: 0}}")
	if s := w.rolloutOf(t, "status"); s.Phase != "" || s.From != "a" || s.To != "b" {
		t.Errorf("before the start: %+v", s)
	}
	w.answers(t, "a", "before the start")
	load := w.startLoad(4)
	if s := w.rolloutOf(t, "start", "chat"); s.Phase != rollout.Running || s.Step != 1 || s.Percent != 20 {
		t.Errorf("started: %+v", s)
	}
	w.reaches(t, rollout.Running, 60)
	s := w.reaches(t, rollout.Promoted, 100)
	for range 20 {
		if got := w.chat("chat"); got.status != 200 || got.header.Get("x-simulator") != "b" {
			t.Fatalf("promoted: status %d from %q", got.status, got.header.Get("x-simulator"))
		}
	}
	load.end()
	if ok, bad := load.ok.Load(), load.refused.Load()+load.strange.Load(); bad > 0 || ok < 100 {
		t.Errorf("%d requests went well, %d did not: %v", ok, bad, load.note.Load())
	}
	t.Logf("%d requests, %+v", load.ok.Load(), s)

	w.stop()
	w.start()
	w.answers(t, "b", "after a restart")
	start := time.Now()
	if s := w.rolloutOf(t, "abort", "chat", "--why", "costs more"); s.Phase != rollout.Aborted || s.Why != "costs more" || s.Percent != 0 {
		t.Errorf("aborted: %+v", s)
	}
	if got := w.chat("chat"); got.header.Get("x-simulator") != "a" {
		t.Errorf("%v after the abort began a request goes to %q", time.Since(start), got.header.Get("x-simulator"))
	}
	if _, errs, code := weir(t, "", "rollout", "promote", "chat", "--data", w.dir); code != 1 || !strings.Contains(errs, "begin with weir rollout start chat") {
		t.Errorf("promote of what does not run: exit code %d: %s", code, errs)
	}
	if _, errs, code := weir(t, "", "rollout", "start", "embed", "--data", w.dir); code != 1 || !strings.Contains(errs, "models[].rollout") {
		t.Errorf("start of what has no rollout: exit code %d: %s", code, errs)
	}
	out, _, _ := weir(t, "", "audit", "list", "--data", w.dir)
	for _, want := range []string{"rollout.start", "rollout.step", "rollout.abort"} {
		if !strings.Contains(out, want) {
			t.Errorf("the audit has no %s:\n%s", want, out)
		}
	}
}

// A canary that fails goes back by itself, and no client notices: the old pool answers
// what it failed at.
func TestRolloutAborts(t *testing.T) {
	t.Parallel()
	w := newCanary(t, "{to: b, sticky: request, steps: [{percent: 50, pause: 1s}]}")
	w.b.fault(t, simulate.Fault{Status: 500})
	load := w.startLoad(4)
	w.rolloutOf(t, "start", "chat")
	s := w.reaches(t, rollout.Aborted, 0)
	failed := len(w.b.Requests())
	time.Sleep(300 * time.Millisecond)
	load.end()
	if ok, bad := load.ok.Load(), load.refused.Load()+load.strange.Load(); bad > 0 || ok < 10 {
		t.Errorf("%d requests went well, %d did not: %v", ok, bad, load.note.Load())
	}
	if s.By != "weir" || !strings.HasPrefix(s.Why, "error rate ") {
		t.Errorf("%+v", s)
	}
	w.b.ClearRequests()
	w.answers(t, "a", "aborted")
	if n := len(w.b.Requests()); n > 0 {
		t.Errorf("the canary still gets requests: %d", n)
	}
	t.Logf("%s; the canary got %d requests", s.Why, failed)
}

// Replicas over one store go along: a rollout that one starts moves the requests of the
// other too, and both count for the same step.
func TestRolloutOfReplicas(t *testing.T) {
	t.Parallel()
	canary := newBackend(t, simulate.Options{Name: "canary"})
	p := newPair(t, "models: [{name: chat, ", "models: [{name: chat, rollout: {to: canary, sticky: request, steps: [{percent: 50, pause: 1s}], judge: {min_requests: 20, max_first_token_ratio: 0}}, ",
		"models: [", "  - {name: canary, placement: private, endpoints: [{url: "+canary.url+"}], model: deepseek-ai/DeepSeek-V3}\nmodels: [")
	p.waits(testKey, 200)
	p.replicas[0].rolloutOf(t, "start", "chat")
	eventually(t, 10*time.Second, func() string {
		if s := p.replicas[1].rolloutOf(t, "status"); s.Percent != 50 {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
	// Neither has enough alone.
	sent := [2]int{}
	for i, o := range p.replicas {
		for range 200 {
			if sent[i] == 12 {
				break
			}
			got := o.with(testKey)
			if got.status != 200 {
				t.Fatal(got.status, got.body)
			}
			if got.header.Get("x-simulator") == "canary" {
				sent[i]++
			}
		}
	}
	s := p.replicas[0].reaches(t, rollout.Promoted, 100)
	p.replicas[1].reaches(t, rollout.Promoted, 100)
	if sent != [2]int{12, 12} || s.By != "weir" {
		t.Errorf("the canary answered %v: %+v", sent, s)
	}
	for _, o := range p.replicas {
		if got := o.with(testKey); got.header.Get("x-simulator") != "canary" {
			t.Errorf("promoted: a request went to %q", got.header.Get("x-simulator"))
		}
	}
}
