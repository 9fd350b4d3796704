package adapter

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/weirproxy/weir/dialect/jsonscan"
	"github.com/weirproxy/weir/internal/ai"
)

// target is an ai.AdapterTarget, ready for use.
type target struct {
	ai.AdapterTarget
	model []byte // the real model's name as JSON, quotes included
}

// idle is how long the target may be silent within a stream.
func (t *target) idle() time.Duration { return time.Duration(t.StreamIdleMillis) * time.Millisecond }

// maxTargets bounds the cache. Past it the cache starts anew: a cluster that is
// gone leaves its parameters here.
const maxTargets = 1024

// targets keeps the targets that were read, by the text of their parameters:
// reading the JSON of each attempt anew would cost more than all else.
type targets map[string]*target

// read finds or parses the parameters.
func (t targets) read(params string) (*target, error) {
	if known, ok := t[params]; ok {
		return known, nil
	}
	parsed, err := parseTarget(params)
	if err != nil {
		return nil, err
	}
	if len(t) >= maxTargets {
		clear(t)
	}
	t[params] = parsed
	return parsed, nil
}

// maxParamDepth is the deepest nesting of parameters; a later weir may say more than strings.
const maxParamDepth = 8

// parseTarget reads what the target's cluster carries. encoding/json would be a fifth of
// the filter's code, all of which Envoy compiles whenever it starts.
func parseTarget(params string) (*target, error) {
	var t target
	body := []byte(params)
	s := jsonscan.Acquire(body, maxParamDepth)
	defer s.Release()
	s.EnterObject()
	for key, ok := s.NextKey(); ok; key, ok = s.NextKey() {
		name := string(s.Text(key))
		v := s.Value()
		if s.Fault() != nil {
			break
		}
		if err := t.set(s, body, name, v); err != nil {
			return nil, err
		}
	}
	s.End()
	if f := s.Fault(); f != nil {
		return nil, fmt.Errorf("target parameters: byte %d: %s", f.Offset, f.What)
	}
	if t.Pool == "" || t.Model == "" {
		return nil, errors.New("target parameters: pool and model must not be empty")
	}
	return &t, nil
}

// set takes in one member; a name that is not known is a later weir's.
func (t *target) set(s *jsonscan.Scanner, body []byte, name string, v jsonscan.Value) error {
	var to *string
	switch name {
	case "pool":
		to = &t.Pool
	case "profile":
		to = &t.Profile
	case "model":
		to = &t.Model
	case "base_path":
		to = &t.BasePath
	case "host":
		to = &t.Host
	case "tells_limits":
		if v.Kind != jsonscan.True && v.Kind != jsonscan.False {
			return errors.New("target parameters: tells_limits: want true or false")
		}
		t.TellsLimits = v.Kind == jsonscan.True
		return nil
	case "stream_idle_ms":
		n, err := strconv.ParseInt(string(body[v.Off:v.Off+v.Len]), 10, 64)
		if v.Kind != jsonscan.Number || err != nil {
			return errors.New("target parameters: stream_idle_ms: want a whole number")
		}
		t.StreamIdleMillis = n
		return nil
	default:
		return nil
	}
	if v.Kind != jsonscan.String {
		return errors.New("target parameters: " + name + ": want a string")
	}
	*to = string(s.Text(v))
	if name == "model" {
		t.model = body[v.Off : v.Off+v.Len] // as it is written into the request
	}
	return nil
}
