package adapter

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

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

func parseTarget(params string) (*target, error) {
	var t target
	if err := json.Unmarshal([]byte(params), &t.AdapterTarget); err != nil {
		return nil, fmt.Errorf("target parameters: %w", err)
	}
	if t.Pool == "" || t.Model == "" {
		return nil, errors.New("target parameters: pool and model must not be empty")
	}
	var err error
	if t.model, err = json.Marshal(t.Model); err != nil {
		return nil, fmt.Errorf("target parameters: model: %w", err)
	}
	return &t, nil
}
