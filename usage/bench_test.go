package usage

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	usagev1 "github.com/weirproxy/weir/proto/weir/usage/v1"
)

// orderedID is like a decision's: later ones are larger, nearly.
func orderedID(n int) string {
	return fmt.Sprintf("%012x%04x%016x", n/4, rand.Uint32()&0xffff, rand.Uint64())
}

func decisions(n int) []*usagev1.Decision {
	list := make([]*usagev1.Decision, n)
	for i := range list {
		list[i] = admitted(0)
		list[i].Id = orderedID(i)
		list[i].Time = timestamppb.New(noon)
	}
	return list
}

// processor reports the processor time of the whole process for each event: on a
// machine that others use too it says more than the time on the clock. Call what
// it returns at the end.
func processor(b *testing.B) func() {
	used := func() int64 {
		var ru syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
			b.Fatal(err)
		}
		return ru.Utime.Nano() + ru.Stime.Nano()
	}
	b.ResetTimer()
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}

// BenchmarkDecided is what a request waits for.
func BenchmarkDecided(b *testing.B) {
	w := newWorld(b)
	list := decisions(b.N)
	b.ReportAllocs()
	defer processor(b)()
	for i := range b.N {
		if err := w.Decided(list[i]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDecidedBeside is the same beside the work in the background: entries
// that close the decisions, syncs and the store. It reports the slowest too.
func BenchmarkDecidedBeside(b *testing.B) {
	w := newWorld(b)
	list := decisions(b.N)
	took := make([]time.Duration, b.N)
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	wg.Go(func() { w.Run(ctx) })
	closing := make(chan *usagev1.Decision, b.N)
	wg.Go(func() {
		for d := range closing {
			e := finished(1)
			id, _ := ParseID(d.Id)
			e.ID = &id
			if err := w.Entry(ctx, e); err != nil {
				b.Error(err)
			}
		}
	})
	defer processor(b)()
	for i := range b.N {
		start := time.Now()
		if err := w.Decided(list[i]); err != nil {
			b.Fatal(err)
		}
		took[i] = time.Since(start)
		closing <- list[i]
		time.Sleep(50 * time.Microsecond)
	}
	b.StopTimer()
	close(closing)
	cancel()
	wg.Wait()
	slices.Sort(took)
	b.ReportMetric(float64(took[b.N/2]), "p50-ns")
	b.ReportMetric(float64(took[b.N*99/100]), "p99-ns")
	b.ReportMetric(float64(took[b.N*999/1000]), "p999-ns")
}

func BenchmarkDecidedParallel(b *testing.B) {
	w := newWorld(b)
	list := make(chan []*usagev1.Decision, 64)
	go func() {
		for range b.N/100 + 64 {
			list <- decisions(100)
		}
		close(list)
	}()
	b.ReportAllocs()
	defer processor(b)()
	b.RunParallel(func(pb *testing.PB) {
		var mine []*usagev1.Decision
		for pb.Next() {
			if len(mine) == 0 {
				mine = <-list
			}
			if err := w.Decided(mine[0]); err != nil {
				b.Fatal(err)
			}
			mine = mine[1:]
		}
	})
}

// BenchmarkWhole is an event's whole life, with the entry as a line of the log:
// decided, read, closed, journalled, stored, rolled up.
func BenchmarkWhole(b *testing.B) {
	w := newWorld(b)
	list := decisions(b.N)
	tl := w.newTailer("access.log", nil)
	ctx := context.Background()
	const batch = 500
	b.ReportAllocs()
	defer processor(b)()
	for i := 0; i < b.N; i += batch {
		part := list[i:min(i+batch, b.N)]
		var lines []byte
		for _, d := range part {
			if err := w.Decided(d); err != nil {
				b.Fatal(err)
			}
			lines = append(lines, lineOfFinished[:7]...)
			lines = append(lines, d.Id...)
			lines = append(lines, lineOfFinished[7+32:]...)
			lines = append(lines, '\n')
		}
		entries, _ := tl.entries(lines)
		if err := w.take(ctx, entries, &tl.at); err != nil {
			b.Fatal(err)
		}
		if err := w.sink.flush(ctx); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	if n := w.metric("weir_usage_stored_total"); int(n) != b.N {
		b.Fatalf("%v of %d events were stored", n, b.N)
	}
}

func BenchmarkDecodeLine(b *testing.B) {
	line := []byte(lineOfFinished)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeLine(line); err != nil {
			b.Fatal(err)
		}
	}
}
