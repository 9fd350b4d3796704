package redis

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/weirproxy/weir/control"
)

// Rollouts implements control.Store.
func (s *Store) Rollouts(ctx context.Context) ([]control.Rollout, error) {
	texts, err := s.all(ctx, "rollouts")
	if err != nil {
		return nil, wrap(err)
	}
	var list []control.Rollout
	for _, model := range slices.Sorted(maps.Keys(texts)) {
		var state json.RawMessage
		revision, err := revisioned(texts[model], &state)
		if err != nil {
			return nil, wrap(fmt.Errorf("rollout of model %q: %w", model, err))
		}
		list = append(list, control.Rollout{Model: model, State: state, Revision: revision})
	}
	return list, nil
}

// Count implements control.Store.
func (s *Store) Count(ctx context.Context, t control.Tally) error {
	answer, err := s.one(ctx, s.client.B().Hset().Key(s.key("tally:"+t.Model)).FieldValue().FieldValue(t.Process, string(t.Counts)).Build())
	if err == nil {
		err = answer.Error()
	}
	return wrap(err)
}

// Tallies implements control.Store.
func (s *Store) Tallies(ctx context.Context, model string) ([]control.Tally, error) {
	texts, err := s.all(ctx, "tally:"+model)
	if err != nil {
		return nil, wrap(err)
	}
	var list []control.Tally
	for _, process := range slices.Sorted(maps.Keys(texts)) {
		list = append(list, control.Tally{Model: model, Process: process, Counts: []byte(texts[process])})
	}
	return list, nil
}

func (s *Store) all(ctx context.Context, hash string) (map[string]string, error) {
	answer, err := s.one(ctx, s.client.B().Hgetall().Key(s.key(hash)).Build())
	if err != nil {
		return nil, err
	}
	return answer.AsStrMap()
}
