package app

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/weirproxy/weir/extproc/replay"
	"github.com/weirproxy/weir/internal/config"
	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
	"github.com/weirproxy/weir/usage/store/sqlite"
	"github.com/weirproxy/weir/xds/build"
)

// MostReplayed is how many decisions can be replayed at once.
const MostReplayed = 100_000

// DryRunRequest asks what another configuration would change.
type DryRunRequest struct {
	Path string `json:"path"` // absolute; where what it names is found
	Text []byte `json:"text"`
	Last int    `json:"last"` // so many of the last decisions are replayed
}

// DryRunReport is what it would.
type DryRunReport struct {
	Version string         `json:"version"` // of the configuration in force
	New     string         `json:"new"`
	Replay  *replay.Report `json:"replay"`
	// Resources are the xDS resources that would be sent, by their type; absent where
	// this weir sends none.
	Resources []build.Difference `json:"resources,omitempty"`
	Warnings  []string           `json:"warnings,omitempty"`
	// Faults are those of the file; then there is nothing else.
	Faults []config.Fault `json:"faults,omitempty"`
}

// dryRun compiles a configuration and brings nothing of it into force.
func (a *app) dryRun(ctx context.Context, in DryRunRequest) (*DryRunReport, error) {
	was := a.plan.Load()
	if a.pipe == nil || was == nil {
		return nil, errors.New("this weir decides about no requests: ask one with the role extproc")
	}
	if in.Last < 0 || in.Last > MostReplayed {
		return nil, fmt.Errorf("the last %d decisions: want 0 to %d", in.Last, MostReplayed)
	}
	r := &DryRunReport{Version: was.Version}
	is, err := config.Parse(in.Path, in.Text, config.Options{DataDir: a.dir, ReadOnly: true, Warn: func(f config.Fault) {
		r.Warnings = append(r.Warnings, f.String())
	}})
	var faults config.Faults
	if errors.As(err, &faults) {
		return &DryRunReport{Version: was.Version, Faults: faults}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := a.checkControl(ctx, is); err != nil {
		return nil, fmt.Errorf("it would be refused: %w", err)
	}
	for _, field := range needsRestart(was, is) {
		r.Warnings = append(r.Warnings, field+": takes effect when weir is started again")
	}
	r.New, is.Stored = is.Version, was.Stored
	run := replay.New(was, is, replay.Known{Live: a.live, Share: a.controls.rollouts.Share})
	reader, err := sqlite.OpenReader(ctx, filepath.Join(a.dir, StoreFile))
	if err != nil {
		return nil, err
	}
	defer func() { _ = reader.Close() }() // it was only read
	if err := reader.Last(ctx, in.Last, func(e *usagev1.Event) error { return run.Add(ctx, e.GetDecision()) }); err != nil {
		return nil, err
	}
	r.Replay = run.Report()
	if a.xds == nil {
		return r, nil
	}
	if is, err = a.ports.preview(is); err != nil {
		return nil, err
	}
	from, err := build.Build(was, a.options)
	if err != nil {
		return nil, err
	}
	to, err := build.Build(is, a.options)
	if err != nil {
		return nil, err
	}
	r.Resources = build.Differences(from, to)
	return r, nil
}
