package live

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/weirproxy/weir/dialect/profile"
)

// Bounds on what an endpoint may answer, in bytes.
const (
	maxAnswer = 8 << 20
	maxLine   = 64 << 10
)

// errNoMetrics says that an answer has none of the metrics that are looked for.
var errNoMetrics = errors.New("the answer has none of the metrics of this adapter")

// parse reads the load from metrics in Prometheus' text format (version 0.0.4). It
// reads the samples that it knows and passes over all else, malformed lines too: of a
// name that is there without one sane value, nothing is known.
func parse(body io.Reader, m *profile.Metrics) (*reading, error) {
	signals := [...]signal{{names: m.Running}, {names: m.Waiting}, {names: m.KVUse}}
	lines := bufio.NewScanner(io.LimitReader(body, maxAnswer))
	lines.Buffer(make([]byte, 0, 4<<10), maxLine)
	for lines.Scan() {
		name, value, ok := sample(lines.Bytes())
		if !ok {
			continue
		}
		for i := range signals {
			signals[i].take(name, value)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	running, hasRunning := signals[0].sum()
	waiting, hasWaiting := signals[1].sum()
	if !hasRunning && !hasWaiting {
		return nil, errNoMetrics
	}
	r := &reading{running: running, waiting: waiting}
	r.kvUse, r.hasKV = signals[2].mean()
	r.kvUse = min(r.kvUse, 1)
	return r, nil
}

// signal gathers the samples of one signal, under whichever of its names.
type signal struct {
	names []string
	total [4]float64 // by name
	count [4]int
}

func (s *signal) take(name []byte, value float64) {
	i := slices.IndexFunc(s.names, func(n string) bool { return string(name) == n })
	if i < 0 || i >= len(s.total) || value < 0 || math.IsNaN(value) || math.IsInf(value, 0) {
		return
	}
	s.total[i] += value
	s.count[i]++
}

func (s *signal) sum() (float64, bool) {
	for i, n := range s.count {
		if n > 0 {
			return s.total[i], true
		}
	}
	return 0, false
}

func (s *signal) mean() (float64, bool) {
	for i, n := range s.count {
		if n > 0 {
			return s.total[i] / float64(n), true
		}
	}
	return 0, false
}

// sample splits name{labels} value [timestamp]. A comment, an empty line and what is
// malformed are no samples.
func sample(line []byte) (name []byte, value float64, ok bool) {
	line = bytes.TrimLeft(line, " \t")
	end := bytes.IndexAny(line, "{ \t")
	if end <= 0 || line[0] == '#' {
		return nil, 0, false
	}
	name, rest := line[:end], line[end:]
	if rest[0] == '{' {
		after := labelsEnd(rest)
		if after < 0 {
			return nil, 0, false
		}
		rest = rest[after:]
	}
	fields := bytes.Fields(rest)
	if len(fields) == 0 || len(fields) > 2 {
		return nil, 0, false
	}
	value, err := strconv.ParseFloat(string(fields[0]), 64)
	return name, value, err == nil
}

// labelsEnd is the length of {a="x",b="y"}; -1 when it does not end.
func labelsEnd(b []byte) int {
	quoted := false
	for i := 1; i < len(b); i++ {
		switch {
		case quoted && b[i] == '\\':
			i++
		case b[i] == '"':
			quoted = !quoted
		case b[i] == '}' && !quoted:
			return i + 1
		}
	}
	return -1
}
