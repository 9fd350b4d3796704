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
	// maxAlerts bounds how many alerts wait, and how many of them for each webhook.
	maxAlerts = 1000
	// hookWorkers is how many alerts are sent to a webhook at a time.
	hookWorkers = 4
	// lookEvery is how often it is looked whether the webhooks have changed.
	lookEvery = time.Second
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
			Name: "weir_limit_alerts_lost_total", Help: "Alerts that a webhook did not take, however often it was tried, that found its queue full, or that waited for it when it was taken out of the configuration.",
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

// run sends alerts until ctx ends, to each webhook on a lane of its own: one that is
// down does not hold the others up.
func (a *alerter) run(ctx context.Context) error {
	lanes := map[string]*lane{}
	defer func() { a.follow(ctx, lanes, nil) }()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			a.follow(ctx, lanes, a.hooks())
		case al := <-a.queue:
			a.follow(ctx, lanes, a.hooks())
			if len(lanes) == 0 {
				continue
			}
			body, err := bodyOf(al)
			if err != nil {
				return err
			}
			for _, l := range lanes {
				a.put(l, body)
			}
		}
	}
}

func bodyOf(al limit.Alert) ([]byte, error) {
	return json.Marshal(message{
		Event: "limit_alert", Limit: al.Limit.Name, Unit: string(al.Limit.Unit), Percent: al.Percent,
		Used: inUnit(al.Limit, al.Used), Amount: inUnit(al.Limit, al.Limit.Amount), Span: al.Limit.Span(),
		Scope: al.Scope.Map(), Time: al.Time.UTC(), Until: al.Until.UTC(),
	})
}

// lane is the way to one webhook: the alerts that wait for it, and those that send
// them. Only run puts alerts in and ends it.
type lane struct {
	hook    plan.Webhook
	queue   chan []byte // has room for what the workers put back
	full    bool
	cancel  context.CancelFunc
	workers sync.WaitGroup
}

// follow makes lanes what the webhooks are now. What waited for one whose secret
// has changed goes out under the new one.
func (a *alerter) follow(ctx context.Context, lanes map[string]*lane, hooks []plan.Webhook) {
	wanted, opened := map[string]bool{}, map[string]*lane{} // by name, and by URL
	for _, h := range hooks {
		name := h.URL + "\x00" + string(h.Secret)
		if wanted[name] = true; lanes[name] == nil {
			lanes[name] = a.open(ctx, h)
			opened[h.URL] = lanes[name]
		}
	}
	for name, l := range lanes {
		if wanted[name] {
			continue
		}
		delete(lanes, name)
		a.handOver(l.end(), l.hook, opened[l.hook.URL])
	}
}

// open begins a lane, which lasts until ctx ends at the latest.
func (a *alerter) open(ctx context.Context, h plan.Webhook) *lane {
	ctx, cancel := context.WithCancel(ctx)
	l := &lane{hook: h, queue: make(chan []byte, maxAlerts+hookWorkers), cancel: cancel}
	for range hookWorkers {
		l.workers.Go(func() { a.work(ctx, l) })
	}
	return l
}

// end ends a lane at once and returns what was not sent.
func (l *lane) end() (left [][]byte) {
	l.cancel()
	l.workers.Wait()
	for len(l.queue) > 0 {
		left = append(left, <-l.queue)
	}
	return left
}

// handOver gives the alerts of a lane that has ended to the one that takes its
// place, if there is one.
func (a *alerter) handOver(alerts [][]byte, from plan.Webhook, next *lane) {
	switch {
	case next != nil:
		for _, body := range alerts {
			a.put(next, body)
		}
	case len(alerts) > 0:
		a.failed.Add(float64(len(alerts)))
		a.log.Warn("alerts that wait for a webhook are not sent any more", "url", from.URL, "alerts", len(alerts))
	}
}

// put adds an alert to a lane; one that does not fit is lost.
func (a *alerter) put(l *lane, body []byte) {
	if len(l.queue) < maxAlerts { // nobody else adds any
		l.queue <- body
		l.full = false
		return
	}
	a.failed.Inc()
	if !l.full {
		a.log.Error("too many alerts wait for a webhook; further ones are lost", "url", l.hook.URL)
	}
	l.full = true
}

// work sends the alerts of a lane until ctx ends, and puts back what it could not
// send before.
func (a *alerter) work(ctx context.Context, l *lane) {
	for {
		select {
		case <-ctx.Done():
			return
		case body := <-l.queue:
			if !a.deliver(ctx, l.hook, body) {
				l.queue <- body
				return
			}
		}
	}
}

// deliver tries a webhook until it takes the alert, for some minutes, and is false
// when ctx ended before.
func (a *alerter) deliver(ctx context.Context, h plan.Webhook, body []byte) bool {
	for try := 0; ; try++ {
		err := a.post(ctx, h, body)
		switch {
		case err == nil:
			return true
		case ctx.Err() != nil:
			return false
		case try == len(a.pauses):
			a.failed.Inc()
			a.log.Error("a webhook does not take an alert; it is given up", "url", h.URL, "err", err)
			return true
		}
		a.log.Warn("a webhook does not take an alert; it is tried again", "url", h.URL, "err", err, "in", a.pauses[try])
		select {
		case <-ctx.Done():
			return false
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
