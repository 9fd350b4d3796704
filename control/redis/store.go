// Package redis is the control store of several machines, in Redis or Valkey. What
// it holds is kept for good: the server must be persistent, with appendonly and
// noeviction, and should be replicated. A store that is not the one any more that
// this machine has seen, or is an older copy of it, is told from the one that was.
package redis

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/internal/plan"
)

// Store is a control store.
type Store struct {
	client rueidis.Client
	base   string // of all keys
	marker string // path
	keep   bool   // the marker is written

	mu   sync.Mutex
	seen place // how far the store was
	kept place // what the marker says of it
}

// place is a place in the history of a store: how many changes there were, and the
// token of the last one, by which two histories that parted are told apart.
type place struct {
	revision control.Revision
	token    string // "" before the first change
}

var _ control.Store = (*Store)(nil)

// Open opens the store of a deployment. The directory keeps how far the store was:
// where it is behind that, or another one, keys and revocations would be gone without
// a word, and that is an error. The client is the store's from then on.
func Open(ctx context.Context, client rueidis.Client, deployment, dir string) (*Store, error) {
	return open(ctx, client, deployment, dir, true)
}

// OpenBeside is Open for a process beside the one that has the directory: it leaves
// no trace there.
func OpenBeside(ctx context.Context, client rueidis.Client, deployment, dir string) (*Store, error) {
	return open(ctx, client, deployment, dir, false)
}

func open(ctx context.Context, client rueidis.Client, deployment, dir string, keep bool) (*Store, error) {
	s := &Store{client: client, base: "{" + deployment + "}:control:", marker: Marker(dir), keep: keep}
	var err error
	if s.kept, err = readMarker(s.marker); err == nil {
		s.seen = s.kept
		_, err = s.ask(ctx)
	}
	if err != nil {
		client.Close()
		return nil, wrap(err)
	}
	return s, nil
}

func (s *Store) key(name string) string { return s.base + name }

// answerWithin bounds each question.
const answerWithin = 5 * time.Second

// last is how far the store was.
func (s *Store) last() place {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

func (s *Store) note(now place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.revision > s.seen.revision {
		s.seen = now
	}
}

// mark keeps how far the store was, so that an older copy is known after a restart too.
func (s *Store) mark() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.keep || s.kept == s.seen {
		return nil
	}
	if err := writeMarker(s.marker, s.seen); err != nil {
		return fmt.Errorf("how far it is cannot be kept: %w", err)
	}
	s.kept = s.seen
	return nil
}

// ask looks whether the store is still the one that it was, and asks what is to be
// asked in the same round.
func (s *Store) ask(ctx context.Context, cmds ...rueidis.Completed) ([]rueidis.RedisResult, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	seen := s.last()
	all := append([]rueidis.Completed{lookScript.build(s, decimal(seen.revision), seen.token)}, cmds...)
	answers := s.client.DoMulti(ctx, all...)
	look := answers[0]
	if lookScript.unknown(look) {
		look = lookScript.load(ctx, s, decimal(seen.revision), seen.token)
	}
	now, err := s.hear(look, seen)
	if err == nil {
		s.note(now)
	}
	return answers[1:], err
}

// one asks a single thing.
func (s *Store) one(ctx context.Context, cmd rueidis.Completed) (rueidis.RedisResult, error) {
	answers, err := s.ask(ctx, cmd)
	if err != nil {
		return rueidis.RedisResult{}, err
	}
	return answers[0], nil
}

// hear takes in what look.lua answers.
func (s *Store) hear(answer rueidis.RedisResult, seen place) (place, error) {
	list, err := answer.ToArray()
	if err != nil {
		return place{}, err
	}
	if len(list) != 3 {
		return place{}, fmt.Errorf("it answered %d values", len(list))
	}
	status, _ := list[0].ToString()
	revision, err := list[1].AsInt64()
	if err != nil {
		return place{}, err
	}
	token, err := list[2].ToString()
	if err != nil {
		return place{}, err
	}
	now := place{control.Revision(revision), token}
	if err := s.status(status, now.revision, seen); err != nil {
		return place{}, err
	}
	if !now.valid() {
		return place{}, errDamaged
	}
	return now, nil
}

// status is what a script's first word says.
func (s *Store) status(status string, now control.Revision, seen place) error {
	switch status {
	case "ok":
		return nil
	case "exists":
		return control.ErrExists
	case "conflict":
		return control.ErrConflict
	case "secret":
		return control.ErrHashSecret
	case "taken":
		return errors.New("another key has the secret")
	case "empty":
		return s.lost("it is empty, and was at revision %d: stored keys would not open and revoked ones would", seen.revision)
	case "older":
		return s.lost("it is at revision %d, and was at %d: an older copy took its place", now, seen.revision)
	case "another":
		return s.lost("its change %d is not the one that was there: another store took its place, or a copy that lost changes and went on without them", seen.revision)
	}
	return fmt.Errorf("it answered %q", status)
}

func (s *Store) lost(format string, args ...any) error {
	return fmt.Errorf("%w: %s. Put the right one back, or, to go on with this one, stop weir, delete %s and start it again",
		control.ErrLost, fmt.Sprintf(format, args...), s.marker)
}

// Close closes the store.
func (s *Store) Close() error {
	s.client.Close()
	return nil
}

// wrap says where an error comes from, but for those that callers branch on.
func wrap(err error) error {
	switch {
	case err == nil, errors.Is(err, control.ErrNotFound), errors.Is(err, control.ErrExists), errors.Is(err, control.ErrConflict), errors.Is(err, control.ErrHashSecret):
		return err
	case rueidis.IsRedisNil(err):
		return control.ErrNotFound
	}
	return fmt.Errorf("control store: %w", err)
}

// Revision implements control.Store.
func (s *Store) Revision(ctx context.Context) (control.Revision, error) {
	if _, err := s.ask(ctx); err != nil {
		return 0, wrap(err)
	}
	return s.last().revision, nil
}

// HashCheck implements control.Store.
func (s *Store) HashCheck(ctx context.Context) ([]byte, error) {
	answer, err := s.one(ctx, s.client.B().Get().Key(s.key("check")).Build())
	if err != nil {
		return nil, wrap(err)
	}
	text, err := answer.ToString()
	if rueidis.IsRedisNil(err) {
		return nil, nil
	}
	if err != nil {
		return nil, wrap(err)
	}
	check, err := hex.DecodeString(text)
	return check, wrap(err)
}

// Put implements control.Store. Where the answer is lost nobody knows whether the
// change was made; the error says so.
func (s *Store) Put(ctx context.Context, c control.Change) (control.Revision, error) {
	kind, name, object, err := encodeObject(&c)
	if err != nil {
		return 0, wrap(err)
	}
	args := []string{kind, hex.EncodeToString(c.HashCheck), name, decimal(c.Was), object}
	if c.Key != nil {
		args = append(args, c.Key.Owner.Team, c.Key.Owner.Application)
		for _, secret := range c.Key.Secrets {
			args = append(args, hex.EncodeToString(secret.Hash[:]))
		}
	}
	return s.put(ctx, c.Record, args)
}

// Note implements control.Store.
func (s *Store) Note(ctx context.Context, r control.Record) error {
	_, err := s.put(ctx, r, []string{"n"})
	return err
}

func (s *Store) put(ctx context.Context, r control.Record, args []string) (control.Revision, error) {
	record, err := encodeRecord(r)
	if err != nil {
		return 0, wrap(err)
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	seen := s.last()
	args = append([]string{decimal(seen.revision), seen.token, newToken(), record}, args...)
	answer, err := putScript.run(ctx, s, args...).ToArray()
	if _, refused := rueidis.IsRedisErr(err); err != nil && !refused {
		err = fmt.Errorf("it is not known whether the change was made: %w", err)
	}
	if err == nil && len(answer) != 2 {
		err = fmt.Errorf("it answered %d values", len(answer))
	}
	if err != nil {
		return 0, wrap(err)
	}
	status, _ := answer[0].ToString()
	revision, err := answer[1].AsInt64()
	if err == nil {
		err = s.status(status, control.Revision(revision), seen)
	}
	if err != nil {
		return 0, wrap(err)
	}
	return control.Revision(revision), nil
}

func newToken() string {
	var b [tokenSize]byte
	rand.Read(b[:]) // never fails: see crypto/rand
	return hex.EncodeToString(b[:])
}

// KeyByHash implements control.Store.
func (s *Store) KeyByHash(ctx context.Context, h plan.KeyHash) (string, error) {
	answer, err := s.one(ctx, s.client.B().Hget().Key(s.key("hashes")).Field(hex.EncodeToString(h[:])).Build())
	if err != nil {
		return "", wrap(err)
	}
	name, err := answer.ToString()
	return name, wrap(err)
}

// Doubts tells why the server may lose what is kept here, by its settings; "" when
// it says nothing of it.
func (s *Store) Doubts(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	info, err := s.client.Do(ctx, s.client.B().Info().Section("persistence").Build()).ToString()
	if err == nil && disabled(info, "aof_enabled") {
		return "the server has appendonly off: when it is started again, keys and revocations of the last minutes or all of them are gone"
	}
	return ""
}

func decimal(r control.Revision) string { return strconv.FormatInt(int64(r), 10) }
