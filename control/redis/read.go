package redis

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"github.com/redis/rueidis"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/internal/plan"
)

// Key implements control.Store.
func (s *Store) Key(ctx context.Context, name string) (control.Key, error) {
	text, err := s.object(ctx, "keys", name)
	if err != nil {
		return control.Key{}, wrap(err)
	}
	k, err := decodeKey(name, text)
	return k, wrap(err)
}

func (s *Store) object(ctx context.Context, hash, name string) (string, error) {
	answer, err := s.one(ctx, s.client.B().Hget().Key(s.key(hash)).Field(name).Build())
	if err != nil {
		return "", err
	}
	return answer.ToString()
}

// Override implements control.Store.
func (s *Store) Override(ctx context.Context, h plan.KeyHash) (control.Override, error) {
	hash := hex.EncodeToString(h[:])
	text, err := s.object(ctx, "overrides", hash)
	if err != nil {
		return control.Override{}, wrap(err)
	}
	o, err := decodeOverride(hash, text)
	return o, wrap(err)
}

// Keys implements control.Store.
func (s *Store) Keys(ctx context.Context, f control.KeyFilter, after string, limit int) ([]control.Key, error) {
	var indexes []string
	if f.Team != "" {
		indexes = append(indexes, "names:team:"+f.Team)
	}
	for _, a := range f.Applications {
		indexes = append(indexes, "names:application:"+a)
	}
	if len(indexes) == 0 {
		indexes = []string{"names"}
	}
	from := "-"
	if after != "" {
		from = "(" + after
	}
	var cmds []rueidis.Completed
	for _, index := range indexes {
		cmds = append(cmds, s.client.B().Zrangebylex().Key(s.key(index)).Min(from).Max("+").Limit(0, int64(limit)).Build())
	}
	answers, err := s.ask(ctx, cmds...)
	if err != nil {
		return nil, wrap(err)
	}
	var names []string
	for _, answer := range answers {
		some, err := answer.AsStrSlice()
		if err != nil {
			return nil, wrap(err)
		}
		names = append(names, some...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	names = names[:min(len(names), limit)]
	list := make([]control.Key, 0, len(names))
	err = s.each(ctx, "keys", names, func(name, text string) error {
		k, err := decodeKey(name, text)
		if err != nil {
			return err
		}
		list = append(list, k)
		return nil
	})
	return list, wrap(err)
}

// each reads objects of a hash.
func (s *Store) each(ctx context.Context, hash string, names []string, fn func(name, text string) error) error {
	if len(names) == 0 {
		return nil
	}
	answer, err := s.one(ctx, s.client.B().Hmget().Key(s.key(hash)).Field(names...).Build())
	if err != nil {
		return err
	}
	values, err := answer.ToArray()
	if err != nil {
		return err
	}
	for i := range values {
		text, err := values[i].ToString()
		if err != nil { // nothing is ever deleted
			return errors.Join(errDamaged, err)
		}
		if err := fn(names[i], text); err != nil {
			return err
		}
	}
	return nil
}

// atOnce is how many objects are read by one question.
const atOnce = 1000

// Changes implements control.Store. Objects that change while they are read are read
// again, until nothing has changed since: then they are as they are in one moment. How
// far that is it keeps last: where it cannot, what was read is in force all the same.
func (s *Store) Changes(ctx context.Context, since control.Revision, fn func(*control.Key, *control.Override) error) (control.Revision, error) {
	for at := since; ; {
		now, err := s.Revision(ctx)
		if err != nil {
			return 0, err
		}
		if now <= at {
			return now, wrap(s.mark())
		}
		if err := s.between(ctx, at, now, fn); err != nil {
			return 0, wrap(err)
		}
		at = now
	}
}

// between calls fn with what changed last after one revision and not after another.
func (s *Store) between(ctx context.Context, since, until control.Revision, fn func(*control.Key, *control.Override) error) error {
	for since < until {
		answer, err := s.one(ctx, s.client.B().Zrangebyscore().Key(s.key("changed")).Min("("+decimal(since)).Max(decimal(until)).
			Withscores().Limit(0, atOnce).Build())
		if err != nil {
			return err
		}
		page, err := answer.AsZScores()
		if err != nil {
			return err
		}
		if len(page) == 0 {
			return nil
		}
		if err := s.page(ctx, page, fn); err != nil {
			return err
		}
		since = control.Revision(page[len(page)-1].Score)
	}
	return nil
}

func (s *Store) page(ctx context.Context, page []rueidis.ZScore, fn func(*control.Key, *control.Override) error) error {
	var keys, overrides []string
	for _, z := range page {
		if name, ok := strings.CutPrefix(z.Member, "k"); ok {
			keys = append(keys, name)
		} else {
			overrides = append(overrides, strings.TrimPrefix(z.Member, "o"))
		}
	}
	err := s.each(ctx, "keys", keys, func(name, text string) error {
		k, err := decodeKey(name, text)
		if err != nil {
			return err
		}
		return fn(&k, nil)
	})
	if err != nil {
		return err
	}
	return s.each(ctx, "overrides", overrides, func(hash, text string) error {
		o, err := decodeOverride(hash, text)
		if err != nil {
			return err
		}
		return fn(nil, &o)
	})
}

// Audit implements control.Store. A record's id is its place in the list, from 1.
func (s *Store) Audit(ctx context.Context, f control.AuditFilter, limit int) ([]control.Record, error) {
	answer, err := s.one(ctx, s.client.B().Llen().Key(s.key("audit")).Build())
	if err != nil {
		return nil, wrap(err)
	}
	last, err := answer.AsInt64()
	if err != nil {
		return nil, wrap(err)
	}
	if f.Before > 0 {
		last = min(last, f.Before-1)
	}
	var list []control.Record
	for last > 0 && len(list) < limit {
		first := max(last-atOnce+1, 1)
		answer, err := s.one(ctx, s.client.B().Lrange().Key(s.key("audit")).Start(first-1).Stop(last-1).Build())
		if err != nil {
			return nil, wrap(err)
		}
		texts, err := answer.AsStrSlice()
		if err != nil {
			return nil, wrap(err)
		}
		for i, text := range slices.Backward(texts) {
			r, err := decodeRecord(first+int64(i), text)
			if err != nil {
				return nil, wrap(err)
			}
			if selects(&f, &r) {
				if list = append(list, r); len(list) == limit {
					return list, nil
				}
			}
		}
		last = first - 1
	}
	return list, nil
}

func selects(f *control.AuditFilter, r *control.Record) bool {
	return (f.Actor == "" || f.Actor == r.Actor) && (f.Action == "" || f.Action == r.Action) && (f.Object == "" || f.Object == r.Object) &&
		(f.Outcome == "" || f.Outcome == r.Outcome) && !r.Time.Before(f.Since)
}
