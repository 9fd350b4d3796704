package control

import "context"

// PutRollout stores a change of a rollout with its record. Before and after say what
// changed. The caller sees to it that it comes into force.
func (k *Keeper) PutRollout(ctx context.Context, by Actor, action string, r Rollout, was Revision, before, after, detail string) (Revision, error) {
	entry := record(by, action, r.Model, k.now(), before, after, detail)
	entry.Object = "rollout/" + r.Model
	return k.Store.Put(ctx, Change{Rollout: &r, Was: was, HashCheck: hashCheck(k.Plan()), Record: entry})
}
