package app

import (
	"time"

	"github.com/weirproxy/weir/xds"
)

// report is what GET /status answers.
type report struct {
	Plan     string      `json:"plan"`             // version of the plan in force
	Pinned   int         `json:"pinned,omitempty"` // the number of the version that a rollback pinned
	Applied  *time.Time  `json:"applied,omitempty"`
	Refused  string      `json:"refused,omitempty"` // why the file is not in force
	Models   int         `json:"models"`
	Pools    int         `json:"pools"`
	Keys     int         `json:"keys"`
	Limits   int         `json:"limits"`
	Held     int         `json:"reservations"` // that are not settled yet
	XDS      *xds.Status `json:"xds,omitempty"`
	DataDir  string      `json:"data_dir"`
	Roles    []Role      `json:"roles"`
	Inactive []string    `json:"stages_not_enforced,omitempty"`
}

func (a *app) status() any {
	r := report{DataDir: a.dir, Roles: a.o.Roles}
	if p := a.plan.Load(); p != nil {
		r.Plan, r.Models, r.Pools, r.Keys, r.Limits = p.Version, len(p.ModelList), len(p.Pools), len(p.KeyList), len(p.Limits)
		for stage, mode := range p.Modes {
			if mode != 0 {
				r.Inactive = append(r.Inactive, stage+": "+mode.String())
			}
		}
	}
	if pin, err := a.versions.Pinned(); err == nil && pin != nil {
		r.Pinned = pin.Number
	}
	if a.limits != nil {
		r.Held = a.limits.ledger.Held()
	}
	if a.xds != nil {
		s := a.xds.Status()
		r.XDS = &s
	}
	a.reload.mu.Lock()
	defer a.reload.mu.Unlock()
	if !a.reload.applied.IsZero() {
		r.Applied = &a.reload.applied
	}
	if a.reload.refused != nil {
		r.Refused = a.reload.refused.Error()
	}
	return r
}
