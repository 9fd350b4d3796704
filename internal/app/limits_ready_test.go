package app

import (
	"errors"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"
)

// Limits that cannot be kept are told of after a minute, from the first failure on
// and with the last one, until they are kept.
func TestLimitsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k keptCheck
		full := errors.New("database or disk is full")
		for i, step := range []struct {
			after time.Duration
			err   error
			want  string // of readiness after the try; empty for ready
		}{
			{0, nil, ""},
			{time.Hour, full, ""}, // nothing was to be kept before
			{59 * time.Second, full, ""},
			{time.Second, full, "the limits have not been kept for 1m0s: database or disk is full"},
			{12 * time.Second, fs.ErrPermission, "the limits have not been kept for 1m12s: permission denied"},
			{time.Second, nil, ""},
			{time.Hour, full, ""},
			{time.Minute - time.Nanosecond, nil, ""},
			{time.Second, full, ""}, // begins anew
			{59 * time.Second, full, ""},
		} {
			time.Sleep(step.after)
			k.note(step.err, time.Now())
			got := ""
			if err := k.ready(); err != nil {
				got = err.Error()
				if !errors.Is(err, step.err) {
					t.Errorf("step %d: %v does not wrap its cause", i, err)
				}
			}
			if got != step.want {
				t.Errorf("step %d: %q, want %q", i, got, step.want)
			}
		}
		// A try that hangs notes nothing.
		time.Sleep(time.Second)
		if err := k.ready(); err == nil {
			t.Error("ready, though nothing was kept for a minute")
		}
	})
}
