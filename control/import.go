package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/weirproxy/weir/internal/plan"
)

// Imported is how much Import has brought.
type Imported struct{ Keys, Overrides int }

// Import brings all keys and overrides of one store to another. What is there
// already stays as it is, unless it is less strict: what is revoked in either place
// is revoked in the end. When the other store has another key with the name of one,
// nothing is imported, unless that one is revoked: then it is left out, as its secret
// opens nothing there either.
func Import(ctx context.Context, from, to Store, by Actor, now time.Time) (n Imported, err error) {
	check, err := from.HashCheck(ctx)
	if err != nil {
		return n, err
	}
	im := importer{to: to, by: by, now: now.Truncate(time.Microsecond), check: check}
	if _, err := from.Changes(ctx, 0, im.collect); err != nil {
		return n, err
	}
	if err := im.clashes(ctx); err != nil {
		return n, err
	}
	for i := range im.keys {
		brought, err := im.key(ctx, &im.keys[i])
		if err != nil {
			return n, fmt.Errorf("key %q: %w", im.keys[i].Name, err)
		}
		n.Keys += brought
	}
	for i := range im.overrides {
		brought, err := im.override(ctx, &im.overrides[i])
		if err != nil {
			return n, fmt.Errorf("what was decided about key %q: %w", im.overrides[i].Name, err)
		}
		n.Overrides += brought
	}
	return n, nil
}

type importer struct {
	to        Store
	by        Actor
	now       time.Time
	check     []byte
	keys      []Key
	overrides []Override
}

func (im *importer) collect(k *Key, o *Override) error {
	if k != nil {
		im.keys = append(im.keys, *k)
	} else {
		im.overrides = append(im.overrides, *o)
	}
	return nil
}

// maxNamed is how many names an error lists.
const maxNamed = 10

// clashes holds that no name is another key's at the other store, and leaves revoked
// keys out of which it is.
func (im *importer) clashes(ctx context.Context) error {
	var names []string
	free := im.keys[:0]
	for _, k := range im.keys {
		there, err := im.to.Key(ctx, k.Name)
		switch {
		case err != nil && !errors.Is(err, ErrNotFound):
			return err
		case err != nil || sameKey(&k, &there):
			free = append(free, k)
		case k.State != plan.StateRevoked:
			names = append(names, clip(k.Name))
		}
	}
	im.keys = free
	if len(names) == 0 {
		return nil
	}
	more := ""
	if len(names) > maxNamed {
		more = fmt.Sprintf(" and %d others", len(names)-maxNamed)
		names = names[:maxNamed]
	}
	return fmt.Errorf("nothing is imported: other keys have the names %s%s there already", strings.Join(names, ", "), more)
}

// sameKey tells whether both are one key: a secret is of one key only.
func sameKey(a, b *Key) bool {
	for _, s := range a.Secrets {
		for _, t := range b.Secrets {
			if s.Hash == t.Hash {
				return true
			}
		}
	}
	return false
}

// key brings a key, and tells how many: 0 when it is there.
func (im *importer) key(ctx context.Context, k *Key) (int, error) {
	there, err := im.to.Key(ctx, k.Name)
	before := ""
	switch {
	case errors.Is(err, ErrNotFound):
		there = *k
		there.Revision = 0
	case err != nil:
		return 0, err
	case there.State >= k.State:
		return 0, nil
	default:
		before, there.State = summary(&there), k.State
	}
	return im.put(ctx, Change{Key: &there, Was: there.Revision, Record: im.record(k.Name, before, summary(&there))})
}

// override brings what was decided about a key of the configuration.
func (im *importer) override(ctx context.Context, o *Override) (int, error) {
	there, err := im.to.Override(ctx, o.Hash) // the zero value when there is none
	if err != nil && !errors.Is(err, ErrNotFound) {
		return 0, err
	}
	if there.State >= o.State {
		return 0, nil
	}
	brought := Override{Hash: o.Hash, Name: o.Name, State: o.State}
	return im.put(ctx, Change{Override: &brought, Was: there.Revision, Record: im.record(o.Name, "state="+there.State.String(), "state="+o.State.String())})
}

func (im *importer) put(ctx context.Context, c Change) (int, error) {
	c.HashCheck = im.check
	if _, err := im.to.Put(ctx, c); err != nil {
		return 0, err
	}
	return 1, nil
}

func (im *importer) record(name, before, after string) Record {
	return record(im.by, "key.import", name, im.now, before, after, "")
}
