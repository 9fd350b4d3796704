package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/weirproxy/weir/internal/plan"
)

// ports remembers which free port was chosen for each listener with port 0, so
// that a reload or a restart of weir moves no listener.
type ports struct {
	file string // "" keeps nothing

	mu     sync.Mutex
	chosen map[string]int
}

func openPorts(dir string) (*ports, error) {
	p := &ports{file: filepath.Join(dir, "ports.json"), chosen: map[string]int{}}
	b, err := os.ReadFile(p.file)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &p.chosen); err != nil {
		return nil, fmt.Errorf("%s: %w", p.file, err)
	}
	return p, nil
}

// resolve returns the plan with every port 0 replaced. The plan itself is not
// changed.
func (p *ports) resolve(in *plan.Plan) (*plan.Plan, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := *in
	out.Listeners = append([]plan.Listener(nil), in.Listeners...)
	added := false
	for i := range out.Listeners {
		l := &out.Listeners[i]
		host, port, err := net.SplitHostPort(l.Address)
		if err != nil {
			return nil, fmt.Errorf("listener %q: %w", l.Name, err)
		}
		if port != "0" {
			continue
		}
		n, ok := p.chosen[l.Name]
		if !ok {
			if n, err = freePort(host); err != nil {
				return nil, fmt.Errorf("listener %q: %w", l.Name, err)
			}
			p.chosen[l.Name], added = n, true
		}
		l.Address = net.JoinHostPort(host, strconv.Itoa(n))
	}
	if added && p.file != "" {
		b, err := json.Marshal(p.chosen)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(p.file, b, 0o600); err != nil {
			return nil, err
		}
	}
	return &out, nil
}

// preview is what resolve would return, and remembers nothing.
func (p *ports) preview(in *plan.Plan) (*plan.Plan, error) {
	p.mu.Lock()
	chosen := maps.Clone(p.chosen)
	p.mu.Unlock()
	return (&ports{chosen: chosen}).resolve(in)
}

func freePort(host string) (int, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
