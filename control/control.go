// Package control is what operators change while weir runs: API keys, revocations,
// and the record of who changed what. It keeps keyed hashes of keys and never a
// key. It decides nothing about a request: it fills the plan's ring, which does.
package control

import (
	"context"
	"errors"
	"time"

	"github.com/weirproxy/weir/internal/plan"
)

// What a store and the Keeper answer, beside failures of the store.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	ErrInvalid  = errors.New("invalid")
	// ErrState says that the object is in a state in which this cannot be done.
	ErrState = errors.New("not possible")
	// ErrConflict says that somebody else changed the object at the same time.
	ErrConflict = errors.New("changed by somebody else at the same time")
	// ErrHashSecret says that the store has its keys under another secret of hashes.
	ErrHashSecret = errors.New("key_hash_secret is not the one under which the control store has its keys: none of them would open, and no revocation would hold")
	// ErrLost says that the store has lost what it had, or that another one or an older
	// copy took its place: stored keys and revocations may be gone.
	ErrLost = errors.New("the control store is not what it was")
	// ErrNotStored says that a change is in force in this process and is not stored yet.
	ErrNotStored = errors.New("in force here, and not stored yet")
	// ErrNotInForce says that a change is stored and does not hold in this process yet.
	ErrNotInForce = errors.New("stored, and not in force here yet")
)

// Revision counts the changes of a store, from 1.
type Revision int64

// Key is a key of the store.
type Key struct {
	Name    string // unique for ever
	Owner   plan.Owner
	State   plan.State
	Note    string
	Expires time.Time // zero is never
	Created time.Time
	Creator string
	Rotated time.Time // zero is never
	Secrets []Secret  // the newest first; at least one
	// Revision is that of its last change.
	Revision Revision
}

// Secret is one secret of a key.
type Secret struct {
	Hash    plan.KeyHash
	Created time.Time
	Expires time.Time // beside the key's own; zero is never
}

// Override is the state of a key of the configuration. It goes by the hash: a new
// secret in the file is a new key, a new name for the same secret is not.
type Override struct {
	Hash     plan.KeyHash
	Name     string // when it was set
	State    plan.State
	Revision Revision
}

// Rollout is how far a model's rollout is.
type Rollout struct {
	Model    string
	State    []byte // JSON, of package rollout
	Revision Revision
}

// Tally is what one process has counted of the requests of a rollout.
type Tally struct {
	Model, Process string
	Counts         []byte // JSON, of package rollout
}

// Change is one change with its record, all or nothing. Exactly one of Key, Override
// and Rollout is there.
type Change struct {
	Key      *Key
	Override *Override
	Rollout  *Rollout
	// Was is the revision of the object that the change rests on; 0 when there was
	// none.
	Was Revision
	// HashCheck tells the secret under which the hashes are from any other.
	HashCheck []byte
	Record    Record
}

// Outcome is how a call ended.
type Outcome string

// The outcomes.
const (
	Done   Outcome = "done"
	Denied Outcome = "denied"
	Failed Outcome = "failed"
)

// Record is an entry of the audit.
type Record struct {
	ID            int64 // given by the store, rising
	Time          time.Time
	Actor         string
	Roles         []string
	Action        string // as key.create
	Object        string // as key/notebook
	Before, After string // summaries, without secrets
	Outcome       Outcome
	Detail        string
}

// KeyFilter selects the keys of a team or of any of these applications; the zero
// value selects all.
type KeyFilter struct {
	Team         string
	Applications []string
}

// AuditFilter selects records; what is empty selects all.
type AuditFilter struct {
	Actor, Action, Object string
	Outcome               Outcome
	Since                 time.Time
	Before                int64 // only records with smaller ids; 0 is all
}

// Store keeps it all. It is safe for concurrent use, and other processes may use
// the same one. Nothing is deleted but secrets that expired long ago, so what
// changed since a revision is complete.
type Store interface {
	// Put makes a change and returns its revision: ErrConflict when the object is not
	// at the revision that the change rests on, ErrExists when it rests on none and
	// there is one, ErrHashSecret when the hash check is not that of the changes
	// before.
	Put(ctx context.Context, c Change) (Revision, error)
	// Key finds a key by name, or ErrNotFound.
	Key(ctx context.Context, name string) (Key, error)
	// Keys lists at most limit keys with names after the one given, by name.
	Keys(ctx context.Context, f KeyFilter, after string, limit int) ([]Key, error)
	// KeyByHash is the name of the key with this secret, or ErrNotFound.
	KeyByHash(ctx context.Context, h plan.KeyHash) (string, error)
	// Override finds what was decided about a key of the configuration, or ErrNotFound.
	Override(ctx context.Context, h plan.KeyHash) (Override, error)
	// Revision is that of the last change. It is asked several times a second, and it
	// fails when what is asked is not the store any more that was opened.
	Revision(ctx context.Context) (Revision, error)
	// Changes calls fn with every key and every override whose last change is later
	// than since, as they are in one moment, until fn returns an error. It returns the
	// revision of that moment.
	Changes(ctx context.Context, since Revision, fn func(*Key, *Override) error) (Revision, error)
	// Rollouts are all rollouts, by model. They are not among the Changes, which say what
	// becomes of keys.
	Rollouts(ctx context.Context) ([]Rollout, error)
	// Count keeps a tally in place of the one before of that process. A change of the
	// rollout deletes all of its model's; one that was under way may come after that, so
	// that the counts should say of which revision they are.
	Count(ctx context.Context, t Tally) error
	// Tallies are those of a model, by process.
	Tallies(ctx context.Context, model string) ([]Tally, error)
	// Note adds a record without a change.
	Note(ctx context.Context, r Record) error
	// Audit lists at most limit records, the newest first.
	Audit(ctx context.Context, f AuditFilter, limit int) ([]Record, error)
	// HashCheck is that of all changes; empty before the first.
	HashCheck(ctx context.Context) ([]byte, error)
	Close() error
}
