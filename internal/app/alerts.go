package app

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
	"github.com/weirproxy/weir/limit"
)

const (
	// maxAlerts bounds how many alerts wait to be sent.
	maxAlerts = 1000
	// hookTimeout bounds one try at a webhook.
	hookTimeout = 10 * time.Second
	// SignatureHeader carries the HMAC-SHA256 of an alert's body.
	SignatureHeader = "x-weir-signature"
)

// hookPauses are those between the tries at a webhook.
var hookPauses = []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, 2 * time.Minute}

// alerter tells of limits that are nearly used up: in the log, in the metrics and
// to webhooks. The ledger never waits for it.
type alerter struct {
	hooks  func() []plan.Webhook
	log    *slog.Logger
	client *http.Client
	pauses []time.Duration
	queue  chan limit.Alert
	total  *prometheus.CounterVec
	failed prometheus.Counter
}

func newAlerter(hooks func() []plan.Webhook, reg prometheus.Registerer, log *slog.Logger) *alerter {
	a := &alerter{
		hooks: hooks, log: log, client: &http.Client{Timeout: hookTimeout}, pauses: hookPauses, queue: make(chan limit.Alert, maxAlerts),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_limit_alerts_total", Help: "Times that so many per cent of a limit were used, once in a period or window of each scope.",
		}, []string{"limit", "percent"}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weir_limit_alerts_lost_total", Help: "Alerts that a webhook did not take, however often it was tried, or that found the queue full.",
		}),
	}
	reg.MustRegister(a.total, a.failed)
	return a
}

// alert is called by the ledger.
func (a *alerter) alert(al limit.Alert) {
	a.total.WithLabelValues(al.Limit.Name, strconv.Itoa(al.Percent)).Inc()
	a.log.Warn("a limit is used up to its alert", "limit", al.Limit.Name, "percent", al.Percent, "scope", al.Scope.String(),
		"used", inUnit(al.Limit, al.Used), "of", inUnit(al.Limit, al.Limit.Amount), "until", al.Until.UTC().Format(time.RFC3339))
	select {
	case a.queue <- al:
	default:
		a.failed.Inc()
	}
}

// message is an alert as webhooks get it.
type message struct {
	Event   string            `json:"event"` // limit_alert
	Limit   string            `json:"limit"`
	Unit    string            `json:"unit"`
	Percent int               `json:"percent"`
	Used    string            `json:"used"`
	Amount  string            `json:"amount"`
	Span    string            `json:"span"` // the window, or the period
	Scope   map[string]string `json:"scope"`
	Time    time.Time         `json:"time"`
	Until   time.Time         `json:"until"`
}

// inUnit writes an amount as people do: money in dollars.
func inUnit(l *plan.Limit, n int64) string {
	if l.Unit == plan.UnitUSD {
		return ai.NanoUSD(n).Decimal()
	}
	return strconv.FormatInt(n, 10)
}

// run sends alerts until ctx ends, each webhook on its own: one that is down does
// not hold the others up.
func (a *alerter) run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case al := <-a.queue:
			hooks := a.hooks()
			if len(hooks) == 0 {
				continue
			}
			body, err := json.Marshal(message{
				Event: "limit_alert", Limit: al.Limit.Name, Unit: string(al.Limit.Unit), Percent: al.Percent,
				Used: inUnit(al.Limit, al.Used), Amount: inUnit(al.Limit, al.Limit.Amount), Span: al.Limit.Span(),
				Scope: al.Scope.Map(), Time: al.Time.UTC(), Until: al.Until.UTC(),
			})
			if err != nil {
				return err
			}
			for _, h := range hooks {
				group.Go(func() { a.deliver(ctx, h, body) })
			}
		}
	}
}

// deliver tries a webhook until it takes the alert, for some minutes.
func (a *alerter) deliver(ctx context.Context, h plan.Webhook, body []byte) {
	for try := 0; ; try++ {
		err := a.post(ctx, h, body)
		if err == nil {
			return
		}
		if try == len(a.pauses) || ctx.Err() != nil {
			a.failed.Inc()
			a.log.Error("a webhook does not take an alert; it is given up", "url", h.URL, "err", err)
			return
		}
		a.log.Warn("a webhook does not take an alert; it is tried again", "url", h.URL, "err", err, "in", a.pauses[try])
		select {
		case <-ctx.Done():
		case <-time.After(a.pauses[try]):
		}
	}
}

func (a *alerter) post(ctx context.Context, h plan.Webhook, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("content-type", "application/json")
	if len(h.Secret) > 0 {
		mac := hmac.New(sha256.New, h.Secret)
		mac.Write(body)
		req.Header.Set(SignatureHeader, "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	if resp.StatusCode >= 300 {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}
