package control

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/weirproxy/weir/internal/ai"
	"github.com/weirproxy/weir/internal/plan"
)

const (
	maxNote    = 256
	maxSecrets = 8 // of one key that open at the same time
	// DefaultOverlap is how long an old secret opens after a rotation.
	DefaultOverlap = 24 * time.Hour
	// MaxOverlap bounds it: a rotation that never ends is none.
	MaxOverlap = 90 * 24 * time.Hour
)

// lastExpiry is the end of what the ring can tell.
var lastExpiry = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

var tokenForm = regexp.MustCompile(plan.TokenPattern)

var namePattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9_.]{0,62})$`)

// Actor is who changes something, as the transport found out.
type Actor struct {
	Name  string
	Roles []string
}

// Keeper changes keys. Each change is stored with its record and is in force in
// this process when the call returns.
type Keeper struct {
	Store    Store
	Follower *Follower
	Plan     func() *plan.Plan // the one in force
	Now      func() time.Time  // default: time.Now
	Rand     io.Reader         // default: crypto/rand
}

// View is a key as it is under the plan in force.
type View struct {
	Key
	Static  bool      // of the configuration
	Refused ai.Reason // of a request with it now
	Gone    string    // what the configuration does not have any more
}

func (k *Keeper) now() time.Time {
	if k.Now != nil {
		return k.Now().Truncate(time.Microsecond)
	}
	return time.Now().Truncate(time.Microsecond) // what the store keeps
}

// New says what key to make.
type New struct {
	Name    string
	Owner   plan.Owner
	Note    string
	Expires time.Time // zero is never
}

// Create makes a key and returns it with its secret, which is nowhere else.
func (k *Keeper) Create(ctx context.Context, by Actor, n New) (View, string, error) {
	now := k.now()
	if err := k.check(&n, now); err != nil {
		return View{}, "", err
	}
	token, secret, err := k.newSecret(now)
	if err != nil {
		return View{}, "", err
	}
	key := Key{
		Name: n.Name, Owner: n.Owner, Note: n.Note, Expires: n.Expires,
		Created: now, Creator: by.Name, Secrets: []Secret{secret},
	}
	v, err := k.put(ctx, Change{Key: &key, Record: record(by, "key.create", n.Name, now, "", summary(&key), n.Note)})
	if errors.Is(err, ErrExists) {
		err = fmt.Errorf("key %q %w: names are not used again", n.Name, ErrExists)
	}
	if err != nil {
		token = "" // what is not in force must not be handed out as if it were
	}
	return v, token, err
}

func (k *Keeper) check(n *New, now time.Time) error {
	if !namePattern.MatchString(n.Name) {
		return fmt.Errorf("name: %w: 1 to 63 lower-case letters, digits, '-', '_' and '.', beginning with a letter or digit", ErrInvalid)
	}
	p := k.Plan()
	if staticKey(p, n.Name) != nil {
		return fmt.Errorf("key %q %w: in the configuration", n.Name, ErrExists)
	}
	if (n.Owner.Application == "") == (n.Owner.Team == "") {
		return fmt.Errorf("owner: %w: exactly one of application and team", ErrInvalid)
	}
	if len(n.Owner.Roles) > plan.MaxRoles {
		return fmt.Errorf("roles: %w: more than %d", ErrInvalid, plan.MaxRoles)
	}
	n.Owner.Roles = slices.Clone(n.Owner.Roles)
	slices.Sort(n.Owner.Roles)
	n.Owner.Roles = slices.Compact(n.Owner.Roles)
	if gone := p.Gone(n.Owner); gone != "" {
		return fmt.Errorf("owner: %w: the configuration has no %s", ErrInvalid, clip(gone))
	}
	switch roles := len(p.PrincipalOf(n.Owner).Roles); {
	case roles > plan.MaxRoles:
		return fmt.Errorf("roles: %w: with those of the application and the team more than %d", ErrInvalid, plan.MaxRoles)
	case roles == 0:
		return fmt.Errorf("roles: %w: neither the key nor its application or team has one: it could call nothing", ErrInvalid)
	}
	if err := checkText("note", n.Note); err != nil {
		return err
	}
	return checkExpiry(n.Expires, now)
}

// checkText bounds what is kept of a caller's words, and keeps keys out of it.
func checkText(field, text string) error {
	if len(text) > maxNote {
		return fmt.Errorf("%s: %w: longer than %d bytes", field, ErrInvalid, maxNote)
	}
	for _, r := range text {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return fmt.Errorf("%s: %w: it holds control characters or is not UTF-8", field, ErrInvalid)
		}
	}
	if tokenForm.MatchString(text) {
		return fmt.Errorf("%s: %w: it seems to hold a key", field, ErrInvalid)
	}
	return nil
}

func checkExpiry(at, now time.Time) error {
	switch {
	case at.IsZero():
		return nil
	case !now.Before(at):
		return fmt.Errorf("expire_time: %w: it is over", ErrInvalid)
	case at.After(lastExpiry):
		return fmt.Errorf("expire_time: %w: after 2100", ErrInvalid)
	}
	return nil
}

func clip(text string) string {
	if len(text) > 80 {
		text = text[:80] + "…"
	}
	return fmt.Sprintf("%q", text)
}

func (k *Keeper) newSecret(now time.Time) (string, Secret, error) {
	random := k.Rand
	if random == nil {
		random = rand.Reader
	}
	token, err := plan.NewToken(random)
	if err != nil {
		return "", Secret{}, err
	}
	return token, Secret{Hash: k.Plan().HashToken(token), Created: now}, nil
}

// put stores a change and brings it into force here.
func (k *Keeper) put(ctx context.Context, c Change) (View, error) {
	c.HashCheck = hashCheck(k.Plan())
	revision, err := k.Store.Put(ctx, c)
	if err != nil {
		return View{}, err
	}
	// A caller that goes now must not keep a change back that is stored.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pollTimeout)
	defer cancel()
	if err := k.Follower.Sync(ctx); err != nil {
		return View{}, fmt.Errorf("%w: %w", ErrNotInForce, err)
	}
	if c.Key == nil {
		return View{}, nil
	}
	c.Key.Revision = revision
	return k.view(*c.Key), nil
}

// Rotate gives a key a new secret; the old ones open until the overlap ends.
// Expires is the key's new expiry; zero leaves it.
func (k *Keeper) Rotate(ctx context.Context, by Actor, name string, overlap time.Duration, expires time.Time) (View, string, error) {
	if overlap < 0 || overlap > MaxOverlap {
		return View{}, "", fmt.Errorf("overlap: %w: from 0 to %s", ErrInvalid, MaxOverlap)
	}
	if staticKey(k.Plan(), name) != nil {
		return View{}, "", fmt.Errorf("key %q: %w: it is of the configuration: rotate it in the file", name, ErrState)
	}
	now := k.now()
	if err := checkExpiry(expires, now); err != nil {
		return View{}, "", err
	}
	var token string
	v, err := k.change(ctx, by, "key.rotate", name, "overlap "+overlap.String(), func(key *Key) error {
		if key.State == plan.StateRevoked {
			return fmt.Errorf("key %q: %w: it is revoked", name, ErrState)
		}
		if !expires.IsZero() {
			key.Expires = expires
		}
		if err := checkExpiry(key.Expires, now); err != nil {
			return fmt.Errorf("key %q: %w: it has expired: give it a new time", name, ErrState)
		}
		fresh, secret, err := k.newSecret(now)
		if err != nil {
			return err
		}
		token = fresh
		return rotate(key, secret, now, overlap)
	})
	if err != nil {
		token = ""
	}
	return v, token, err
}

func rotate(key *Key, secret Secret, now time.Time, overlap time.Duration) error {
	secrets, open := []Secret{secret}, 1
	for _, s := range key.Secrets {
		s.Expires = sooner(now.Add(overlap), s.Expires)
		if s.Expires.Before(now.Add(-forgetAfter)) {
			continue
		}
		if now.Before(s.Expires) {
			open++
		}
		secrets = append(secrets, s)
	}
	if open > maxSecrets {
		return fmt.Errorf("key %q: %w: %d secrets of it open already: rotate it with a shorter overlap", key.Name, ErrState, maxSecrets)
	}
	key.Secrets, key.Rotated = secrets, now
	return nil
}

// SetState disables a key, enables it again, or revokes it for good.
func (k *Keeper) SetState(ctx context.Context, by Actor, name string, state plan.State, why string) (View, error) {
	if err := checkText("reason", why); err != nil {
		return View{}, err
	}
	action := "key." + [...]string{"enable", "disable", "revoke"}[state]
	if static := staticKey(k.Plan(), name); static != nil {
		return k.override(ctx, by, action, static, state, why)
	}
	return k.change(ctx, by, action, name, why, func(key *Key) error {
		if key.State == plan.StateRevoked && state != plan.StateRevoked {
			return fmt.Errorf("key %q: %w: it is revoked: make a new one", name, ErrState)
		}
		key.State = state
		return nil
	})
}

// change changes a key of the store, again if somebody else did meanwhile.
func (k *Keeper) change(ctx context.Context, by Actor, action, name, why string, fn func(*Key) error) (View, error) {
	for try := 0; ; try++ {
		key, err := k.Store.Key(ctx, name)
		if errors.Is(err, ErrNotFound) {
			return View{}, fmt.Errorf("key %s: %w", clip(name), ErrNotFound)
		}
		if err != nil {
			return View{}, err
		}
		before := summary(&key)
		if err := fn(&key); err != nil {
			return View{}, err
		}
		v, err := k.put(ctx, Change{Key: &key, Was: key.Revision, Record: record(by, action, name, k.now(), before, summary(&key), why)})
		if try < 5 && errors.Is(err, ErrConflict) {
			continue
		}
		return v, err
	}
}

// override sets the state of a key of the configuration.
func (k *Keeper) override(ctx context.Context, by Actor, action string, static *plan.Key, state plan.State, why string) (View, error) {
	was, err := k.Store.Override(ctx, static.Hash)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return View{}, err
	}
	if was.State == plan.StateRevoked && state != plan.StateRevoked {
		return View{}, fmt.Errorf("key %q: %w: it is revoked: give it a new secret in the file", static.Name, ErrState)
	}
	_, err = k.put(ctx, Change{
		Override: &Override{Hash: static.Hash, Name: static.Name, State: state}, Was: was.Revision,
		Record: record(by, action, static.Name, k.now(), "state="+was.State.String(), "state="+state.String(), why),
	})
	if err != nil {
		return View{}, err
	}
	return k.staticView(ctx, static)
}

func staticKey(p *plan.Plan, name string) *plan.Key {
	for _, key := range p.KeyList {
		if key.Name == name {
			return key
		}
	}
	return nil
}

// Key finds a key by its name.
func (k *Keeper) Key(ctx context.Context, name string) (View, error) {
	if static := staticKey(k.Plan(), name); static != nil {
		return k.staticView(ctx, static)
	}
	key, err := k.Store.Key(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return View{}, fmt.Errorf("key %s: %w", clip(name), ErrNotFound)
	}
	if err != nil {
		return View{}, err
	}
	return k.view(key), nil
}

// KeyBySecret finds whose a secret is.
func (k *Keeper) KeyBySecret(ctx context.Context, token string) (View, error) {
	if plan.Malformed(token) {
		return View{}, fmt.Errorf("secret: %w: it was never a key: mistyped or cut off", ErrInvalid)
	}
	p := k.Plan()
	h := p.HashToken(token)
	if static := p.Keys[h]; static != nil {
		return k.staticView(ctx, static)
	}
	name, err := k.Store.KeyByHash(ctx, h)
	if errors.Is(err, ErrNotFound) {
		return View{}, fmt.Errorf("secret: %w: no key has or had it", ErrNotFound)
	}
	if err != nil {
		return View{}, err
	}
	return k.Key(ctx, name)
}

func (k *Keeper) view(key Key) View {
	v := View{Key: key, Gone: k.Plan().Gone(key.Owner)}
	switch {
	case key.State == plan.StateRevoked:
		v.Refused = ai.ReasonKeyRevoked
	case key.State == plan.StateDisabled:
		v.Refused = ai.ReasonKeyDisabled
	case !key.Expires.IsZero() && !k.now().Before(key.Expires):
		v.Refused = ai.ReasonKeyExpired
	case v.Gone != "":
		v.Refused = ai.ReasonKeyOrphaned
	}
	return v
}

func (k *Keeper) staticView(ctx context.Context, static *plan.Key) (View, error) {
	v := View{Static: true, Key: Key{
		Name: static.Name, Expires: static.Expires, Owner: plan.Owner{Application: static.Principal.Application, Roles: static.Principal.Roles},
	}}
	if v.Owner.Application == "" {
		v.Owner.Team = static.Principal.Team
	}
	was, err := k.Store.Override(ctx, static.Hash)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return View{}, err
	}
	switch {
	case was.State == plan.StateRevoked || static.Revoked:
		v.State, v.Refused = plan.StateRevoked, ai.ReasonKeyRevoked
	case was.State == plan.StateDisabled || static.Disabled:
		v.State, v.Refused = plan.StateDisabled, ai.ReasonKeyDisabled
	default:
		v.Refused = static.Refusal(k.now())
	}
	return v, nil
}

// Query selects keys. Status is a reason, "active", or empty for all.
type Query struct {
	Application string
	Team        string // its applications' keys too
	Status      string
	After       string // only names after this one
	Limit       int
}

// Keys lists the keys of the store and of the configuration, by name. More tells
// that there may be others after the last one.
func (k *Keeper) Keys(ctx context.Context, q Query) (list []View, more bool, err error) {
	if !slices.Contains(statuses, q.Status) { // it would find nothing, as if there were nothing
		return nil, false, fmt.Errorf("status: %w: one of%s", ErrInvalid, strings.Join(statuses, " "))
	}
	static, err := k.staticKeys(ctx, q)
	if err != nil {
		return nil, false, err
	}
	stored, err := k.storedKeys(ctx, q)
	if err != nil {
		return nil, false, err
	}
	list = slices.Concat(static, stored)
	slices.SortFunc(list, func(a, b View) int { return strings.Compare(a.Name, b.Name) })
	if len(list) > q.Limit {
		return list[:q.Limit], true, nil
	}
	return list, false, nil
}

var statuses = []string{
	"", "active", string(ai.ReasonKeyDisabled), string(ai.ReasonKeyExpired), string(ai.ReasonKeyRevoked), string(ai.ReasonKeyOrphaned),
}

func (q *Query) wants(v *View) bool {
	status := string(v.Refused)
	if status == "" {
		status = "active"
	}
	return q.Status == "" || q.Status == status
}

func (k *Keeper) staticKeys(ctx context.Context, q Query) ([]View, error) {
	var list []View
	for _, key := range k.Plan().KeyList {
		p := &key.Principal
		if key.Name <= q.After || q.Application != "" && q.Application != p.Application || q.Team != "" && q.Team != p.Team {
			continue
		}
		v, err := k.staticView(ctx, key)
		if err != nil {
			return nil, err
		}
		if q.wants(&v) {
			list = append(list, v)
		}
	}
	return list, nil
}

// pageSize is how many keys are asked of the store at once.
const pageSize = 1000

// storedKeys are as many as are asked for, or a few more.
func (k *Keeper) storedKeys(ctx context.Context, q Query) ([]View, error) {
	filter, ok := k.filter(q)
	if !ok {
		return nil, nil
	}
	var list []View
	for after := q.After; len(list) <= q.Limit; {
		page, err := k.Store.Keys(ctx, filter, after, pageSize)
		if err != nil {
			return nil, err
		}
		for _, key := range page {
			v := k.view(key)
			after = key.Name
			if q.wants(&v) {
				list = append(list, v)
			}
		}
		if len(page) < pageSize {
			break
		}
	}
	return list, nil
}

// filter is what the store can choose by; false when nothing can be chosen.
func (k *Keeper) filter(q Query) (KeyFilter, bool) {
	apps := k.Plan().Directory.Applications
	if q.Application != "" {
		team := apps[q.Application].Team // "" of one that is gone
		return KeyFilter{Applications: []string{q.Application}}, q.Team == "" || q.Team == team
	}
	f := KeyFilter{Team: q.Team}
	for name, app := range apps {
		if q.Team != "" && app.Team == q.Team {
			f.Applications = append(f.Applications, name)
		}
	}
	return f, true
}

// OverlapEnd is until when a secret opens that was rotated out; zero when none does.
func (v *View) OverlapEnd(now time.Time) time.Time {
	var last time.Time
	for _, s := range v.Secrets[min(1, len(v.Secrets)):] {
		if end := sooner(v.Expires, s.Expires); now.Before(end) && end.After(last) {
			last = end
		}
	}
	return last
}

func record(by Actor, action, name string, now time.Time, before, after, detail string) Record {
	return Record{
		Time: now, Actor: by.Name, Roles: by.Roles, Action: action, Object: "key/" + name,
		Before: before, After: after, Outcome: Done, Detail: detail,
	}
}

// summary is a key in the words of the audit.
func summary(k *Key) string {
	var b strings.Builder
	fmt.Fprintf(&b, "state=%s", k.State)
	if k.Owner.Application != "" {
		fmt.Fprintf(&b, " application=%s", k.Owner.Application)
	} else {
		fmt.Fprintf(&b, " team=%s", k.Owner.Team)
	}
	if len(k.Owner.Roles) > 0 {
		fmt.Fprintf(&b, " roles=%s", strings.Join(k.Owner.Roles, ","))
	}
	if !k.Expires.IsZero() {
		fmt.Fprintf(&b, " expires=%s", k.Expires.UTC().Format(time.RFC3339))
	}
	if !k.Rotated.IsZero() {
		fmt.Fprintf(&b, " rotated=%s", k.Rotated.UTC().Format(time.RFC3339))
	}
	return b.String()
}

// Clash holds that no key of a configuration has the name of a stored one.
func (k *Keeper) Clash(ctx context.Context, p *plan.Plan) error {
	for i, key := range p.KeyList {
		_, err := k.Store.Key(ctx, key.Name)
		switch {
		case err == nil:
			return fmt.Errorf("keys[%d].name: the control store has a key %q: events and limits could not tell them apart", i, key.Name)
		case !errors.Is(err, ErrNotFound):
			return err
		}
	}
	return nil
}
