package live

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/weirproxy/weir/internal/plan"
)

const (
	// tick is how often the scraper looks for endpoints whose turn it is.
	tick = 100 * time.Millisecond
	// maxAsking bounds the endpoints that are asked at one time: those that answered the
	// last time, and apart from them those that did not. Who keeps one waiting until its
	// time is up must not keep the others from being asked.
	maxAsking = 256
)

// Scraper asks the endpoints how busy they are.
type Scraper struct {
	table  *Table
	log    *slog.Logger
	slots  chan struct{}
	silent chan struct{} // slots for endpoints that did not answer the last time
	asked  sync.WaitGroup
}

// NewScraper makes a scraper that fills the table.
func NewScraper(t *Table, log *slog.Logger) *Scraper {
	return &Scraper{table: t, log: log, slots: make(chan struct{}, maxAsking), silent: make(chan struct{}, maxAsking)}
}

// Run asks until ctx ends.
func (s *Scraper) Run(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	defer s.asked.Wait()
	for {
		s.round(ctx, s.table.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// round begins to ask the endpoints whose turn it is. An endpoint that still has not
// answered, and those for which there is no place, have their turn later.
func (s *Scraper) round(ctx context.Context, now time.Time) {
	for _, p := range *s.table.pools.Load() {
		conf := p.conf.Load()
		if conf.Metrics.Path == "" {
			continue
		}
		if p.of != conf {
			if p.client != nil {
				p.client.CloseIdleConnections()
			}
			p.client, p.of = s.client(conf), conf
		}
		list := *p.endpoints.Load()
		for i, e := range list {
			if e.due.IsZero() { // spread over the interval
				e.due = now.Add(conf.Metrics.Interval * time.Duration(i) / time.Duration(len(list)))
			}
			if !now.Before(e.due) && s.begin(ctx, p, e, p.client, conf) {
				e.due = now.Add(e.pause(conf.Metrics.Interval))
			}
		}
		s.tell(p, conf, now)
	}
}

// tell says, in one line a pool and not in one an endpoint, that endpoints stopped or
// began to answer, once the others that go the same way had their turn as well.
func (s *Scraper) tell(p *pool, conf *plan.Pool, now time.Time) {
	down := p.heard.Load().down
	switch {
	case down == p.told:
		p.tellAt = time.Time{}
		return
	case p.tellAt.IsZero():
		p.tellAt = now.Add(downAfter * conf.Metrics.Interval)
		return
	case now.Before(p.tellAt):
		return
	}
	if list := *p.endpoints.Load(); down > p.told {
		why := []any{"pool", conf.Name, "down", down, "of", len(list)}
		if at := slices.IndexFunc(list, (*endpoint).down); at >= 0 {
			why = append(why, "endpoint", list[at].address, "err", list[at].state(now, 0).Error)
		}
		s.log.Warn("endpoints do not answer", why...)
	} else {
		s.log.Info("endpoints answer again", "pool", conf.Name, "down", down, "of", len(list))
	}
	p.told, p.tellAt = down, time.Time{}
}

// begin asks an endpoint, apart. It is false where that cannot be done now.
func (s *Scraper) begin(ctx context.Context, p *pool, e *endpoint, client *http.Client, conf *plan.Pool) bool {
	if !e.asking.CompareAndSwap(false, true) {
		return false
	}
	slots := s.slots
	if !e.answered() {
		slots = s.silent
	}
	select {
	case slots <- struct{}{}:
	default:
		e.asking.Store(false)
		return false
	}
	s.asked.Go(func() {
		defer func() { <-slots; e.asking.Store(false) }()
		s.take(ctx, p, e, client, conf)
	})
	return true
}

// take asks an endpoint and keeps what it says.
func (s *Scraper) take(ctx context.Context, p *pool, e *endpoint, client *http.Client, conf *plan.Pool) {
	r, err := ask(ctx, client, e.address, conf)
	if ctx.Err() != nil {
		return
	}
	var mute *muteError
	switch {
	case err == nil:
		r.at = s.table.Now()
		e.said(r)
	case errors.As(err, &mute):
		e.silence(mute.Error(), false)
	default:
		e.silence(err.Error(), true)
	}
	p.summarize()
}

// muteError is of an endpoint that answers, and does not tell how busy it is.
type muteError struct{ why string }

func (e *muteError) Error() string { return e.why }

// ask reads an endpoint's metrics.
func ask(ctx context.Context, client *http.Client, address string, conf *plan.Pool) (*reading, error) {
	if port := conf.Metrics.Port; port != 0 {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		address = net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, conf.Scheme+"://"+address+conf.Metrics.Path, nil)
	if err != nil {
		return nil, err
	}
	if conf.ServerName != "" {
		req.Host = conf.ServerName
	}
	req.Header.Set("Accept", "text/plain;version=0.0.4")
	resp, err := client.Do(req)
	if err != nil {
		return nil, plainly(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 500 {
		return nil, fmt.Errorf("%s answers %d", conf.Metrics.Path, resp.StatusCode)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &muteError{fmt.Sprintf("%s answers %d", conf.Metrics.Path, resp.StatusCode)}
	}
	r, err := parse(resp.Body, &conf.Adapter.Metrics)
	if err != nil {
		return nil, &muteError{plainly(err).Error()}
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 1) // so that the connection is used again
	return r, nil
}

// plainly is the error without the URL, which whoever reads it knows.
func plainly(err error) error {
	var net *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded), os.IsTimeout(err):
		return errors.New("no answer in time")
	case errors.As(err, &net):
		return net
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return err
}

// client makes the client of a pool. It goes through no proxy and follows no
// redirection: what answers is the endpoint or nobody.
func (s *Scraper) client(conf *plan.Pool) *http.Client {
	t := &http.Transport{
		MaxIdleConnsPerHost: 1, IdleConnTimeout: 3 * conf.Metrics.Interval, ResponseHeaderTimeout: conf.Metrics.Timeout,
		DialContext: (&net.Dialer{Timeout: conf.ConnectTimeout}).DialContext,
	}
	if conf.Scheme == "https" {
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: conf.ServerName}
		if conf.CAFile != "" {
			// Without authorities that can be read nothing is trusted.
			t.TLSClientConfig.RootCAs = x509.NewCertPool()
			pem, err := os.ReadFile(conf.CAFile)
			if err != nil || !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
				s.log.Error("metrics: the authorities of a pool cannot be read", "pool", conf.Name, "file", conf.CAFile, "err", err)
			}
		}
	}
	return &http.Client{
		Transport: t, Timeout: conf.Metrics.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
