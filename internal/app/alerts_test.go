package app

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

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
