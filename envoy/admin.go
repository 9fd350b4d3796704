package envoy

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Admin talks to an Envoy's admin interface.
type Admin struct {
	client *http.Client
	base   string
}

// NewAdmin makes a client for unix:/path or host:port.
func NewAdmin(address string) *Admin {
	a := &Admin{base: "http://" + address, client: &http.Client{Timeout: 10 * time.Second}}
	transport := &http.Transport{DisableKeepAlives: true}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		a.base = "http://envoy"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}
	}
	a.client.Transport = transport
	return a
}

// maxAdminAnswer bounds what is read of an answer, in bytes.
const maxAdminAnswer = 64 << 20

func (a *Admin) do(ctx context.Context, method, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, nil)
	if err != nil {
		return "", fmt.Errorf("envoy admin: %w", err)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return "", fmt.Errorf("envoy admin: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAdminAnswer))
	if err != nil {
		return "", fmt.Errorf("envoy admin: %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("envoy admin: %s: status %d: %.200s", path, resp.StatusCode, body)
	}
	return string(body), nil
}

// Ready is nil when Envoy serves: it has its listeners, and workers run.
func (a *Admin) Ready(ctx context.Context) error {
	_, err := a.do(ctx, http.MethodGet, "/ready")
	return err
}

// Stats are the counters and gauges whose names match a regular expression
// (RE2).
func (a *Admin) Stats(ctx context.Context, filter string) (map[string]int64, error) {
	return a.stats(ctx, "filter="+url.QueryEscape(filter))
}

func (a *Admin) stats(ctx context.Context, query string) (map[string]int64, error) {
	text, err := a.do(ctx, http.MethodGet, "/stats?"+query)
	if err != nil {
		return nil, err
	}
	stats := make(map[string]int64)
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		name, value, ok := strings.Cut(s.Text(), ": ")
		if n, err := strconv.ParseInt(value, 10, 64); ok && err == nil { // histograms are not numbers
			stats[name] = n
		}
	}
	return stats, nil
}

// ActiveRequests is how many requests of clients are under way.
func (a *Admin) ActiveRequests(ctx context.Context) (int64, error) {
	stats, err := a.Stats(ctx, `^http\..*\.downstream_rq_active$`)
	if err != nil {
		return 0, err
	}
	var n int64
	for name, v := range stats {
		if !strings.HasPrefix(name, "http.admin.") {
			n += v
		}
	}
	return n, nil
}

// Warm tells that no cluster and no listener waits for something before it is
// used. Envoy acknowledges a cluster before its endpoints are known.
func (a *Admin) Warm(ctx context.Context) (bool, error) {
	// Of all kinds of statistics Envoy takes 60 ms of its main thread with a thousand
	// clusters, of gauges 15.
	filter := `^(cluster_manager\.warming_clusters|listener_manager\.total_listeners_warming)$`
	stats, err := a.stats(ctx, "type=Gauges&filter="+url.QueryEscape(filter))
	if err != nil {
		return false, err
	}
	for _, v := range stats {
		if v != 0 {
			return false, nil
		}
	}
	return true, nil
}

// Listeners are the addresses (host:port) on which Envoy really listens, by
// listener: what port 0 became.
func (a *Admin) Listeners(ctx context.Context) (map[string]string, error) {
	text, err := a.do(ctx, http.MethodGet, "/listeners?format=json")
	if err != nil {
		return nil, err
	}
	var answer struct {
		Statuses []struct {
			Name    string `json:"name"`
			Address struct {
				Socket struct {
					Address string `json:"address"`
					Port    uint32 `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return nil, fmt.Errorf("envoy admin: /listeners: %w", err)
	}
	out := make(map[string]string, len(answer.Statuses))
	for _, s := range answer.Statuses {
		socket := s.Address.Socket
		out[s.Name] = net.JoinHostPort(socket.Address, strconv.FormatUint(uint64(socket.Port), 10))
	}
	return out, nil
}

// ReopenLogs makes Envoy open its log files anew, after they were renamed.
func (a *Admin) ReopenLogs(ctx context.Context) error {
	_, err := a.do(ctx, http.MethodPost, "/reopen_logs")
	return err
}

// stopListening closes the listening sockets, and every connection after its
// next answer; open streams go on.
func (a *Admin) stopListening(ctx context.Context) error {
	if _, err := a.do(ctx, http.MethodPost, "/healthcheck/fail"); err != nil {
		return err
	}
	_, err := a.do(ctx, http.MethodPost, "/drain_listeners")
	return err
}

func (a *Admin) quit(ctx context.Context) error {
	_, err := a.do(ctx, http.MethodPost, "/quitquitquit")
	return err
}
