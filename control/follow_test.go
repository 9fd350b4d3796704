package control_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirproxy/weir/control"
	"github.com/weirproxy/weir/internal/plan"
)

// slow is a store with one change, which takes some time to answer.
type slow struct {
	control.Store
	ask, read time.Duration
	fails     error
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slow) Revision(ctx context.Context) (control.Revision, error) {
	if s.fails != nil {
		return 0, s.fails
	}
	return 1, wait(ctx, s.ask)
}

func (s *slow) Changes(ctx context.Context, _ control.Revision, _ func(*control.Key, *control.Override) error) (control.Revision, error) {
	return 1, wait(ctx, s.read)
}

// follow lets a follower run for a while, and returns it.
func follow(t *testing.T, s *slow, d time.Duration) *control.Follower {
	t.Helper()
	f := control.NewFollower(s, plan.NewRing(), slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = f.Run(ctx)
	}()
	t.Cleanup(func() { stop(); <-done })
	time.Sleep(d)
	synctest.Wait()
	return f
}

func unready(t *testing.T, f *control.Follower, says string) {
	t.Helper()
	err := f.Ready()
	if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
		t.Errorf("%v, want %q", err, says)
	}
}

// Much that changed is read to its end, however long it takes; until then the process
// is not ready, as it may miss a revocation.
func TestMuchToRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, &slow{read: 10 * time.Second}, 1900*time.Millisecond)
		unready(t, f, "")
		time.Sleep(3100 * time.Millisecond)
		unready(t, f, "is being read for 5s")
		time.Sleep(6 * time.Second)
		unready(t, f, "")
		if r := f.Revision(); r != 1 {
			t.Errorf("revision %d", r)
		}
	})
}

// A store that hangs or fails is told of after two seconds, and not before.
func TestUnreadyAfter(t *testing.T) {
	gone := errors.New("gone")
	for name, tt := range map[string]struct {
		store slow
		says  string
	}{
		"it fails": {slow{fails: gone}, "cannot be read for 2s: gone"},
		"it hangs": {slow{ask: time.Hour}, "is being read for 2s"},
	} {
		synctest.Test(t, func(t *testing.T) {
			t.Log(name)
			f := follow(t, &tt.store, 1900*time.Millisecond)
			unready(t, f, "")
			time.Sleep(200 * time.Millisecond)
			synctest.Wait()
			unready(t, f, tt.says)
		})
	}
}
