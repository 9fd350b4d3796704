// Package redis is the control store of several machines, in Redis or Valkey. What
// it holds is kept for good: the server must be persistent, with appendonly and
// noeviction, and should be replicated. One that comes back with an older copy is
// told from the one that was.
package redis

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/internal/plan"
)

//go:embed put.lua
var putLua string

var putScript = rueidis.NewLuaScript(putLua)

// MarkerFile, in the data directory, says which store it was and how far it was.
const MarkerFile = "control-redis.id"

// Store is a control store.
type Store struct {
	client rueidis.Client
	base   string // of all keys
	id     string
	marker string // path

	mu     sync.Mutex
	seen   control.Revision // the highest
	marked bool             // it is written in the marker
}

var _ control.Store = (*Store)(nil)

// Open opens the store of a deployment, and makes it for a directory that never saw
// it. Where there was one and is none now, or another or an older one, keys and
// revocations would be gone without a word: that is an error. The client is the
// store's from then on.
func Open(ctx context.Context, client rueidis.Client, deployment, dir string) (*Store, error) {
	s := &Store{client: client, base: "{" + deployment + "}:control:", marker: filepath.Join(dir, MarkerFile)}
	if err := s.open(ctx); err != nil {
		client.Close()
		return nil, fmt.Errorf("control store: %w", err)
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	id, seen, err := readMarker(s.marker)
	if err != nil {
		return err
	}
	if seen == 0 { // nothing that could be lost
		s.id = id
		if id == "" {
			var b [16]byte
			rand.Read(b[:]) // never fails: see crypto/rand
			s.id = hex.EncodeToString(b[:])
		}
		if err := s.begin(ctx); err != nil {
			return err
		}
	}
	facts, err := s.do(ctx, s.client.B().Hmget().Key(s.key("meta")).Field("id", "revision").Build()).ToArray()
	if err != nil {
		return err
	}
	own, _ := facts[0].ToString() // "" when there is none
	revision, err := integer(&facts[1])
	switch {
	case err != nil:
		return err
	case own == "":
		return fmt.Errorf("it is empty, and was not: stored keys would not open and revoked ones would. Put a backup back, or, to begin anew without them, delete %s", s.marker)
	case id != "" && id != own:
		return fmt.Errorf("it is another one than %s names. Put the right one back, or, to go on with this one, delete %s", s.marker, s.marker)
	case revision < seen:
		return fmt.Errorf("it is at revision %d, and was at %d: an older copy took its place. Put the newer one back, or, to go on with this one, delete %s", revision, seen, s.marker)
	}
	s.id = own
	s.seen = seen
	return s.note(revision)
}

// begin gives the store its id, unless it has one.
func (s *Store) begin(ctx context.Context) error {
	return s.do(ctx, s.client.B().Hsetnx().Key(s.key("meta")).Field("id").Value(s.id).Build()).Error()
}

// integer reads a number that may be absent: then it is 0.
func integer(m *rueidis.RedisMessage) (control.Revision, error) {
	n, err := m.AsInt64()
	if rueidis.IsRedisNil(err) {
		return 0, nil
	}
	return control.Revision(n), err
}

func (s *Store) key(name string) string { return s.base + name }

// answerWithin bounds each question.
const answerWithin = 5 * time.Second

func (s *Store) do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return s.client.Do(ctx, cmd)
}

// empty says that no change was seen yet.
func (s *Store) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen == 0
}

// note keeps how far the store was, so that an older copy is known after a restart
// too.
func (s *Store) note(r control.Revision) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r <= s.seen && s.marked {
		return nil
	}
	if err := writeMarker(s.marker, s.id, r); err != nil {
		return err
	}
	s.seen, s.marked = r, true
	return nil
}

// readMarker is the id of the store that the directory has seen, and its revision;
// "" when it never saw one.
func readMarker(path string) (id string, seen control.Revision, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, err
	}
	id, number, ok := strings.Cut(strings.TrimSpace(string(b)), " ")
	n, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || id == "" || n < 0 {
		return "", 0, fmt.Errorf("%s is damaged", path)
	}
	return id, control.Revision(n), nil
}

func writeMarker(path, id string, r control.Revision) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s %d\n", id, r)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
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

var errLost = errors.New("what answers is not the store any more that was opened: start weir again")

// Revision implements control.Store.
func (s *Store) Revision(ctx context.Context) (control.Revision, error) {
	facts, err := s.do(ctx, s.client.B().Hmget().Key(s.key("meta")).Field("id", "revision").Build()).ToArray()
	if err != nil {
		return 0, wrap(err)
	}
	switch id, _ := facts[0].ToString(); {
	case id == "" && s.empty(): // a server that forgets has forgotten nothing yet
		return 0, wrap(s.begin(ctx))
	case id != s.id:
		return 0, wrap(errLost)
	}
	r, err := integer(&facts[1])
	if err == nil {
		err = s.note(r)
	}
	return r, wrap(err)
}

// HashCheck implements control.Store.
func (s *Store) HashCheck(ctx context.Context) ([]byte, error) {
	text, err := s.do(ctx, s.client.B().Hget().Key(s.key("meta")).Field("check").Build()).ToString()
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
	record, err := encodeRecord(c.Record)
	if err != nil {
		return 0, wrap(err)
	}
	args := []string{s.id, hex.EncodeToString(c.HashCheck)}
	was := strconv.FormatInt(int64(c.Was), 10)
	if c.Key != nil {
		object, err := encodeKey(c.Key)
		if err != nil {
			return 0, wrap(err)
		}
		args = append(args, "k", c.Key.Name, was, object, record, c.Key.Owner.Team, c.Key.Owner.Application)
		for _, secret := range c.Key.Secrets {
			args = append(args, hex.EncodeToString(secret.Hash[:]))
		}
	} else {
		object, err := encodeOverride(c.Override)
		if err != nil {
			return 0, wrap(err)
		}
		args = append(args, "o", hex.EncodeToString(c.Override.Hash[:]), was, object, record)
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	answer, err := putScript.Exec(ctx, s.client, []string{s.key("meta")}, args).ToArray()
	if err != nil {
		return 0, wrap(fmt.Errorf("it is not known whether the change was made: %w", err))
	}
	return s.outcome(answer)
}

func (s *Store) outcome(answer []rueidis.RedisMessage) (control.Revision, error) {
	if len(answer) == 0 {
		return 0, wrap(errors.New("no answer"))
	}
	status, err := answer[0].ToString()
	switch {
	case err != nil:
		return 0, wrap(err)
	case status == "exists":
		return 0, control.ErrExists
	case status == "conflict":
		return 0, control.ErrConflict
	case status == "secret":
		return 0, control.ErrHashSecret
	case status == "taken":
		return 0, wrap(errors.New("another key has the secret"))
	case status == "lost":
		return 0, wrap(errLost)
	case status != "ok" || len(answer) != 2:
		return 0, wrap(fmt.Errorf("it answered %q", status))
	}
	r, err := integer(&answer[1])
	return r, wrap(err)
}

// Note implements control.Store.
func (s *Store) Note(ctx context.Context, r control.Record) error {
	text, err := encodeRecord(r)
	if err != nil {
		return wrap(err)
	}
	return wrap(s.do(ctx, s.client.B().Rpush().Key(s.key("audit")).Element(text).Build()).Error())
}

// KeyByHash implements control.Store.
func (s *Store) KeyByHash(ctx context.Context, h plan.KeyHash) (string, error) {
	name, err := s.do(ctx, s.client.B().Hget().Key(s.key("hashes")).Field(hex.EncodeToString(h[:])).Build()).ToString()
	return name, wrap(err)
}
