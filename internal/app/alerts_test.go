package app

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

// A webhook gets each alert, signed, though it fails at first; one that is down
// does not hold the others up.
func TestAlertsReachWebhooks(t *testing.T) {
	secret := []byte("signing secret")
	bodies := make(chan []byte, 4)
	var tries atomic.Int64
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mac := hmac.New(sha256.New, secret)
		mac.Write(body)
		if r.Header.Get(SignatureHeader) != "sha256="+hex.EncodeToString(mac.Sum(nil)) || r.Header.Get("content-type") != "application/json" {
			t.Errorf("headers %v", r.Header)
		}
		if tries.Add(1) < 3 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		bodies <- body
	}))
	defer hook.Close()
	down := httptest.NewServer(nil)
	down.Close()
	a := newAlerter(func() []plan.Webhook {
		return []plan.Webhook{{URL: down.URL}, {URL: hook.URL, Secret: secret}}
	}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	a.pauses = []time.Duration{0, 0, 0, 0}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- a.run(ctx) }()

	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	a.alert(limit.Alert{
		Limit:   &plan.Limit{Name: "month", Unit: plan.UnitUSD, Amount: 2_000_000_000, Period: plan.Month, Zone: time.UTC},
		Scope:   limit.Scope{Team: "core"},
		Percent: 50, Used: 1_000_000_001, Time: at, Until: at.Add(time.Hour),
	})
	var got message
	if err := json.Unmarshal(<-bodies, &got); err != nil {
		t.Fatal(err)
	}
	want := message{
		Event: "limit_alert", Limit: "month", Unit: "usd", Percent: 50, Used: "1.000000001", Amount: "2.00", Span: "month",
		Scope: map[string]string{"team": "core"}, Time: at, Until: at.Add(time.Hour),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// hookStubs answer as webhooks do: those that hang never do.
type hookStubs struct {
	mu            sync.Mutex
	hang          map[string]bool
	running, most map[string]int            // at a time
	got           map[string]map[string]int // how often each limit's alert came, by URL
}

func newHookStubs(hang ...string) *hookStubs {
	h := &hookStubs{hang: map[string]bool{}, running: map[string]int{}, most: map[string]int{}, got: map[string]map[string]int{}}
	for _, url := range hang {
		h.hang[url] = true
	}
	return h
}

// RoundTrip implements http.RoundTripper.
func (h *hookStubs) RoundTrip(r *http.Request) (*http.Response, error) {
	url := r.URL.String()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	h.running[url]++
	h.most[url] = max(h.most[url], h.running[url])
	hang := h.hang[url]
	h.mu.Unlock()
	if hang {
		<-r.Context().Done()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running[url]--
	if hang {
		return nil, r.Context().Err()
	}
	var m message
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	if h.got[url] == nil {
		h.got[url] = map[string]int{}
	}
	mac := hmac.New(sha256.New, []byte("new"))
	mac.Write(body)
	if r.Header.Get(SignatureHeader) == "sha256="+hex.EncodeToString(mac.Sum(nil)) {
		m.Limit += " newly signed"
	}
	h.got[url][m.Limit]++
	return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody, Request: r}, nil
}

func (h *hookStubs) set(url string, hang bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hang[url] = hang
}

// received is how many alerts came, each counted once, and how many of them newly
// signed.
func (h *hookStubs) received(url string) (all, signed int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name := range h.got[url] {
		if strings.HasSuffix(name, "newly signed") {
			signed++
		}
	}
	return len(h.got[url]), signed
}

// A flood of alerts and a webhook that is dead cost some workers and a queue, and
// hold up neither the other webhooks, nor a reload, nor the end.
func TestAlertFlood(t *testing.T) {
	const dead, live = "http://dead.example/", "http://live.example/"
	synctest.Test(t, func(t *testing.T) {
		var hooks atomic.Pointer[[]plan.Webhook]
		configure := func(list ...plan.Webhook) { hooks.Store(&list) }
		configure(plan.Webhook{URL: dead, Secret: []byte("old")}, plan.Webhook{URL: live})
		stubs := newHookStubs(dead)
		a := newAlerter(func() []plan.Webhook { return *hooks.Load() }, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		a.client.Transport = stubs
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- a.run(ctx) }()
		n := 0
		flood := func(alerts int) {
			for range alerts {
				n++
				a.alert(limit.Alert{Limit: &plan.Limit{Name: fmt.Sprint("l", n), Unit: plan.UnitTokens, Amount: 1}, Percent: 100})
				if n%500 == 0 {
					synctest.Wait()
				}
			}
			synctest.Wait()
		}
		lost := func(want float64) {
			t.Helper()
			if got := testutil.ToFloat64(a.failed); got != want {
				t.Errorf("%v alerts lost, want %v", got, want)
			}
		}

		began := time.Now()
		flood(1500)
		if all, _ := stubs.received(live); all != 1500 {
			t.Errorf("the live webhook got %d alerts", all)
		}
		if most := stubs.most[dead]; most != hookWorkers {
			t.Errorf("%d alerts at a time for the dead webhook", most)
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("it took %s", waited)
		}
		const kept = maxAlerts + hookWorkers // what waits, and what is being sent
		lost(1500 - kept)

		// Its secret changes and it comes back: what waited goes out under the new one.
		stubs.set(dead, false)
		configure(plan.Webhook{URL: dead, Secret: []byte("new")})
		time.Sleep(lookEvery)
		synctest.Wait()
		if all, signed := stubs.received(dead); all != kept || signed != kept {
			t.Errorf("%d alerts of %d came, %d of them newly signed", all, kept, signed)
		}
		for name, times := range stubs.got[dead] {
			if times != 1 {
				t.Errorf("%s came %d times", name, times)
			}
		}
		lost(1500 - kept)

		// It is taken out while alerts wait for it: nobody is tried any more.
		stubs.set(dead, true)
		flood(10)
		configure()
		time.Sleep(lookEvery)
		synctest.Wait()
		lost(1500 - kept + 10)
		if running := stubs.running[dead]; running != 0 {
			t.Errorf("%d alerts are still being sent", running)
		}

		// The end waits for nothing.
		configure(plan.Webhook{URL: dead})
		flood(10)
		began = time.Now()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("the end took %s", waited)
		}
	})
}
